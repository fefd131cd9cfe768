"""The embedded S3 server: rclone's, one for the machine, on loopback, outlasting its starter.

State lies in a per-user folder outside every clone (`STUDY_STATE_DIR`, else XDG_STATE_HOME):
`credentials` (mode 600), `server.json` (address and process id), `server.log` and `data/`.
"""

import configparser
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from pipeline.errors import StorageError
from pipeline.storage.s3 import BUCKET, DEFAULT_BUCKET, Storage

START_TIMEOUT_S = 20.0
PORT = "STUDY_S3_PORT"


@dataclass(frozen=True)
class Server:
    """A running server."""

    endpoint: str
    pid: int


def state_dir() -> Path:
    """Returns the per-user folder of the embedded services, created with mode 700."""
    default = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    path = Path(os.environ.get("STUDY_STATE_DIR") or default / "resnet-study").resolve()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def is_external() -> bool:
    """Tells whether the environment names another S3 than the embedded one."""
    return bool(os.environ.get("AWS_ENDPOINT_URL") or os.environ.get(BUCKET))


def connect() -> Storage:
    """Returns the study's bucket, starting the embedded server where it is needed and not up.

    The environment of this process and its children names it afterwards.
    """
    if not is_external():
        server = ensure_running()
        access_key, secret = _keys()
        os.environ.update(
            AWS_ENDPOINT_URL=server.endpoint,
            AWS_ACCESS_KEY_ID=access_key,
            AWS_SECRET_ACCESS_KEY=secret,
            AWS_DEFAULT_REGION="us-east-1",
        )
        os.environ.setdefault(BUCKET, DEFAULT_BUCKET)
        os.environ.pop("AWS_PROFILE", None)
        os.environ.pop("AWS_SESSION_TOKEN", None)
    storage = Storage()
    storage.ensure_bucket()
    return storage


def process_of(pid: int, started: float) -> psutil.Process | None:
    """Returns the process that had this id and began then (seconds since 1970), if it lives."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def running() -> Server | None:
    """Returns the machine's server if it is up."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        facts = json.loads((state_dir() / "server.json").read_text())
        if process_of(facts["pid"], facts["started"]):
            return Server(facts["endpoint"], facts["pid"])
    return None


def ensure_running() -> Server:
    """Returns the machine's server, started if need be; two callers start one."""
    with FileLock(state_dir() / "lock", timeout=START_TIMEOUT_S * 2):
        return running() or _start()


def stop() -> bool:
    """Stops the server; tells whether there was one. Its data stay."""
    with FileLock(state_dir() / "lock", timeout=START_TIMEOUT_S * 2):
        server = running()
        if server is None:
            return False
        process = psutil.Process(server.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)
        (state_dir() / "server.json").unlink(missing_ok=True)
        return True


def credentials_file() -> Path:
    """Returns the file of the random keys, in AWS's format, written once with mode 600."""
    path = state_dir() / "credentials"
    if not path.exists():
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(
                "[default]\n"
                f"aws_access_key_id = {secrets.token_hex(10).upper()}\n"
                f"aws_secret_access_key = {secrets.token_urlsafe(30)}\n"
            )
        part.replace(path)
    return path


def _keys() -> tuple[str, str]:
    config = configparser.ConfigParser()
    config.read(credentials_file())
    return config["default"]["aws_access_key_id"], config["default"]["aws_secret_access_key"]


def port_from(variable: str) -> int | None:
    """Returns the port that an environment variable names, or None; raises StorageError."""
    text = os.environ.get(variable, "")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise StorageError(f"{variable}: found {text!r}, wanted a port from 1 to 65535")
    return int(text)


def free_port() -> int:
    """Returns a port on loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tells whether a program listens on a port on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _port() -> int:
    """Returns the wanted port, else last time's (DVC's settings name it), else a free one."""
    remembered = state_dir() / "port"
    if wanted := port_from(PORT):
        port = wanted
    elif remembered.exists():
        port = int(remembered.read_text())
    else:
        port = free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StorageError(
                f"port {port} on 127.0.0.1 is in use by another program, and the embedded S3 server "
                f"wants it: end that program, or set {PORT} to a free port and run `make up`"
            ) from error
    remembered.write_text(str(port))
    return port


def _start() -> Server:
    folder, port = state_dir(), _port()
    (folder / "data").mkdir(exist_ok=True, mode=0o700)
    access_key, secret = _keys()
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if rclone is None:
        raise StorageError("rclone is not installed beside this Python: run `make install`")
    command = [
        rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", "",
        "--cache-dir", str(folder / "cache"), "--vfs-cache-mode", "off", str(folder / "data"),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # rclone reads each flag from the environment too, so the keys are not in the process list
    environment["RCLONE_AUTH_KEY"] = f'"{access_key},{secret}"'
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=folder, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if answers(port):
            break
        time.sleep(0.05)
    else:
        process.kill()
        last = (folder / "server.log").read_text(errors="replace").strip().splitlines()[-3:]
        raise StorageError(
            f"the embedded S3 server did not start on port {port}: {' / '.join(last)} "
            f"(log: {folder / 'server.log'})"
        )
    endpoint = f"http://127.0.0.1:{port}"
    facts = {
        "endpoint": endpoint, "pid": process.pid,
        "started": psutil.Process(process.pid).create_time(),
    }  # fmt: skip
    (folder / "server.json").write_text(json.dumps(facts))
    return Server(endpoint, process.pid)
