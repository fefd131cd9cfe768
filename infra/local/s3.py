"""The embedded S3 server: rclone's, one per machine, on loopback; it outlives its starter.

Its state is in a per-user folder outside every clone (`STUDY_STATE_DIR`, else XDG_STATE_HOME):
`credentials` and `connection.json` (mode 600), `port`, `host`, `server.log` and `data/`. The kernel
tells whether the server is alive: it holds a lock on `server.lock` as long as it lives. A signed request
tells whether the process that listens is our server.

One file, although long: finding, starting, taking over and stopping the server share one protocol of files
and locks, whose steps are only right together.
"""

import configparser
import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from pipeline import environment
from pipeline.errors import BusyError, StorageError, StudyError
from pipeline.execution import clones
from pipeline.files import SECRETS_LOCK, secret, write, write_private
from pipeline.storage import bucket as buckets
from pipeline.storage.bucket import DEFAULT_BUCKET, DEFAULT_REGION, RESTART_S, Bucket
from pipeline.storage.objects import Storage

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LOOK_EVERY_S = 1.0
PORT = "STUDY_S3_PORT"
# on these, another host may not see a lock
NETWORK_FILESYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse",
    "9p",
    "afs",
)


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is 0 if it is unknown."""

    endpoint: str
    pid: int


def state_dir() -> Path:
    """Returns the per-user folder of the embedded services, created with mode 700."""
    path = environment.state_dir()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def connect() -> Storage:
    """Returns the study's bucket, after starting the embedded server if it is needed and not running.

    Afterwards this process and its children know where the bucket is, and `make gc` knows of this clone.
    """
    if (chosen := buckets.external()) is None:
        chosen = _place(ensure_running().endpoint)
        chosen.save(state_dir() / "connection.json")
    storage = Storage(at=chosen)
    storage.ensure_bucket()
    clones.note(Path.cwd())
    return storage


@contextmanager
def kept() -> Iterator[Storage]:
    """Gives the study's bucket; if the embedded server dies meanwhile, it is started again.

    Not if it was stopped: `make down` means it.
    """
    storage = connect()
    if not storage.place.is_embedded:
        yield storage
        return
    left = threading.Event()

    def keep() -> None:
        while not left.wait(LOOK_EVERY_S):
            with contextlib.suppress(StudyError, OSError):
                if _has_died():
                    with _alone():
                        if _has_died():
                            _start()

    keeper = threading.Thread(target=keep, name="keeper of the S3 server", daemon=True)
    keeper.start()
    try:
        yield Storage(at=storage.place, patience_s=RESTART_S)
    finally:
        left.set()
        keeper.join()


def _has_died() -> bool:
    """Tells whether the server has ended, but was not stopped; while it is being stopped, it seems so."""
    return (state_dir() / "server.pid").exists() and not is_held(state_dir() / "server.lock")


def _place(endpoint: str) -> Bucket:
    return Bucket(DEFAULT_BUCKET, endpoint, DEFAULT_REGION, *_keys())


@contextmanager
def _alone() -> Iterator[None]:
    """Lets one process of this user at a time start or stop the server."""
    try:
        with FileLock(state_dir() / "lock", timeout=START_TIMEOUT_S * 2):
            yield
    except Timeout:
        raise BusyError(
            f"{state_dir() / 'lock'}: another process has been starting or stopping the embedded S3 "
            f"server for {START_TIMEOUT_S * 2:.0f} s: end it, then try again"
        ) from None


def is_held(lock: Path) -> bool:
    """Tells whether a process holds a lock file that `held_by_child` made."""
    try:
        file = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


@contextmanager
def held_by_child(lock: Path) -> Iterator[int]:
    """Takes a lock; a child that is given the file (`pass_fds`) holds it until it ends.

    Raises BusyError if another process holds it.
    """
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + 2.0
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # `is_held` also holds it for a moment
                if time.monotonic() > deadline:
                    raise BusyError(f"{lock} is held by another process") from None
                time.sleep(0.02)
        yield file
    finally:
        os.close(file)


def running() -> Server | None:
    """Returns the machine's server if it accepts our keys, else None.

    If a process of another user has taken the port, it is never contacted.
    """
    folder = state_dir()
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int((folder / "port").read_text())
        if listens_for_us(port) and _accepts_our_keys(port):
            return Server(f"http://127.0.0.1:{port}", _pid())
    return None


def _pid() -> int:
    """Returns the server's process id, or 0 if it is unknown."""
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.Error):
        pid = int((state_dir() / "server.pid").read_text())
        if _is_server(psutil.Process(pid)):
            return pid
    # it was started by an earlier version, or its starter was killed
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _is_server(process):
                return process.pid
    return 0


def _is_server(process: psutil.Process) -> bool:
    """Tells whether a process is this folder's server."""
    command = process.cmdline()
    return process.uids().real == os.getuid() and str(state_dir() / "data") in command[-1:]


def listens_for_us(port: int) -> bool:
    """Tells whether a process of this user listens on a port on loopback."""
    table = Path("/proc/net/tcp")
    if not table.exists():  # macOS
        return answers(port)
    wanted = f"0100007F:{port:04X}"
    fields = (line.split() for line in table.read_text().splitlines()[1:])
    return any(
        line[1] == wanted and line[3] == "0A" and int(line[7]) == os.getuid() for line in fields
    )


def _accepts_our_keys(port: int) -> bool:
    try:
        Storage(at=_place(f"http://127.0.0.1:{port}"), is_probe=True).ensure_bucket()
    except StorageError:
        return False
    return True


def ensure_running() -> Server:
    """Returns the machine's server, started if it is not running; two callers start only one."""
    with _alone():
        return running() or _start()


def stop() -> bool:
    """Stops the server; tells whether there was one. Its data stay."""
    with _alone():
        folder = state_dir()
        if not (pid := _pid()):
            if is_held(folder / "server.lock"):
                raise StorageError(f"the embedded S3 server of {folder} {_elsewhere()}")
            return False
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
            if not _ended(process):
                process.kill()
                _ended(process)
        for name in ("server.pid", "host"):
            (folder / name).unlink(missing_ok=True)
        return True


def _ended(process: psutil.Process) -> bool:
    """Waits for the server's process to end, and tells whether it did; a zombie counts as ended.

    It has ended with its last thread, which lets go of its lock: on a busy machine later than its first one.
    """
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            lives = process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            lives = False
        if not lives and not is_held(state_dir() / "server.lock"):
            return True
        time.sleep(0.05)
    return False


def _elsewhere() -> str:
    there = state_dir() / "host"
    host = there.read_text().strip() if there.exists() else "another host"
    return (
        f"runs on {host}, but this is {platform.node()}: two servers must not share a folder: set "
        f"STUDY_STATE_DIR to a folder of this host's own, or `make down` there (if that host is "
        f"gone, delete {there})"
    )


def _on_network(folder: Path) -> bool:
    """Tells whether a folder is on a file system that hosts may share."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return False
    found = (line.split()[1:3] for line in mounts.read_text().splitlines())
    around = [entry for entry in found if folder.is_relative_to(entry[0])]
    return max(around, key=lambda entry: len(entry[0]), default=("", ""))[1].startswith(
        NETWORK_FILESYSTEMS
    )


def credentials_file() -> Path:
    """Returns the file with the random keys, in AWS's format, written once with mode 600."""
    path = state_dir() / "credentials"
    with FileLock(state_dir() / SECRETS_LOCK):
        if not path.exists():
            write_private(
                path,
                "[default]\n"
                f"aws_access_key_id = {secrets.token_hex(10).upper()}\n"
                f"aws_secret_access_key = {secrets.token_urlsafe(30)}\n",
            )
    return path


def secret_file(name: str) -> Path:
    """Returns a private file of the state folder (mode 600) with a random token, written once."""
    return secret(state_dir() / name)


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
    """Returns a free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tells whether a program listens on a port on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _port() -> int:
    """Returns the port that is asked for, else last time's (DVC's settings name it), else a free one."""
    remembered = state_dir() / "port"
    if wanted := port_from(PORT):
        port = wanted
    else:
        last = remembered.read_text() if remembered.exists() else ""
        port = int(last) if last.isdecimal() else free_port()  # a full disk leaves an empty file
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StorageError(
                f"port {port} on 127.0.0.1 is in use by another program, but the embedded S3 server "
                f"needs it: end that program, or set {PORT} to a free port and run `make up`"
            ) from error
    write(remembered, str(port))
    return port


def _refuse_a_second() -> None:
    """Raises StorageError if this folder's server is or may be alive, but cannot be used from here."""
    folder = state_dir()
    there, held = folder / "host", is_held(folder / "server.lock")
    if not there.exists() or there.read_text().strip() == platform.node():
        if held:
            raise StorageError(
                f"the embedded S3 server (process {_pid()}) holds {folder / 'server.lock'} but does not "
                f"answer to its keys: `make down`, then try again (log: {folder / 'server.log'})"
            )
    elif held or _on_network(folder):
        raise StorageError(f"the embedded S3 server of {folder} {_elsewhere()}")


def _start() -> Server:
    _refuse_a_second()
    folder, port = state_dir(), _port()
    (folder / "data").mkdir(exist_ok=True, mode=0o700)
    for part in (folder / "data").rglob(".rclone_temp_*"):  # what killed uploads have left
        part.unlink()
    access_key, secret = _keys()
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if rclone is None:
        raise StorageError("rclone is not installed beside this Python: run `make install`")
    command = [
        rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", "",
        "--cache-dir", str(folder / "cache"), "--vfs-cache-mode", "off",
        # nobody else writes there; what it forgets it hashes again for the next listing, at 0.5 GB/s
        "--dir-cache-time", "8760h", str(folder / "data"),
    ]  # fmt: skip
    hidden = ("AWS_", "RCLONE_")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    # rclone reads each flag from the environment too, so the keys are not in the process list
    variables["RCLONE_AUTH_KEY"] = f'"{access_key},{secret}"'
    (folder / "host").write_text(f"{platform.node()}\n")
    with (folder / "server.log").open("ab") as log, held_by_child(folder / "server.lock") as lock:
        # the server writes its own process id: its starter may be killed at any moment
        process = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0" && exec "$@"', folder / "server.pid", *command],
            env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=folder, start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if answers(port):
            return Server(f"http://127.0.0.1:{port}", process.pid)
        time.sleep(0.02)
    process.kill()
    last = (folder / "server.log").read_text(errors="replace").strip().splitlines()[-3:]
    raise StorageError(
        f"the embedded S3 server did not start on port {port}: {' / '.join(last)} "
        f"(log: {folder / 'server.log'})"
    )
