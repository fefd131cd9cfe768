"""`make doctor`: checks everything that the study needs, and says how to fix what is wrong.

It changes nothing, but starts the embedded S3 server and makes the bucket, if the study itself would.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from infra.local import hook as hook_of_python
from infra.local import s3
from pipeline import environment, machine
from pipeline.errors import StudyError, without_password
from pipeline.files import private_folder
from pipeline.storage.layout import project

GB = 1e9
LEAST_DISK_GB, LEAST_MEMORY_GB = 5, 3
LARGEST_SKEW_S = 300  # S3 refuses a signature that is older
WAIT_S = 5.0
SOCKET_PATH = 107  # the most characters of a Unix socket's path; next, what Ray adds to its folder
OF_RAY = 66


@dataclass(frozen=True)
class Finding:
    """What was checked, what was found, and what to do about it (empty if nothing is wrong)."""

    what: str
    found: str
    to_do: str = ""


def python() -> Finding:
    """Version and environment."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.prefix == sys.base_prefix:
        return Finding("Python", f"{version}, no virtual environment", "run `make install`")
    return Finding("Python", f"{version} in {sys.prefix}")


def packages() -> Finding:
    """Whether the installed packages are those of requirements.lock."""
    lines = Path("requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split(" ")[0].split("==") for line in lines if "==" in line.split(" ")[0])
    wanted = {
        name: locked[name] for name in ("torch", "ray", "mlflow", "dvc", "boto3") if name in locked
    }
    differ = []
    for name, version in wanted.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != version:
            differ.append(f"{name} {found}, locked {version}")
    if differ:
        return Finding("packages", "; ".join(differ), "rm .venv/.installed; make install")
    return Finding("packages", ", ".join(f"{name} {version}" for name, version in wanted.items()))


def hook() -> Finding:
    """Whether every process of the virtual environment runs `settle` first (`pipeline.environment`)."""
    if hook_of_python.is_live() and os.environ.get(environment.SETTLED):
        return Finding("settings", "the settings of other services are kept out")
    return Finding(
        "settings",
        "this virtual environment's hook is missing, or of a clone that is gone",
        "python -m infra.local.hook",
    )


def disk() -> Finding:
    """Free space where the study, its state and temporary files are."""
    places = {
        "study": Path.cwd(),
        "state": s3.state_dir(),
        "temporary": Path(tempfile.gettempdir()),
    }
    free = {name: shutil.disk_usage(path).free / GB for name, path in places.items()}
    found = ", ".join(f"{name} {gb:.0f} GB free" for name, gb in free.items())
    least = min(free, key=lambda name: free[name])
    short = f"free some space in {places[least]}" if free[least] < LEAST_DISK_GB else ""
    return Finding("disk", found, short)


def memory_and_cores() -> Finding:
    """The free memory and the cores that this machine has for the study."""
    free = machine.free_memory_bytes() / GB
    found = f"{free:.1f} GB free, {machine.cores()} cores"
    return Finding("machine", found, "end other programs" if free < LEAST_MEMORY_GB else "")


def temporary_folder() -> Finding:
    """Whether Ray's sockets get a path that is short enough."""
    folder = private_folder(short=True)
    if len(str(folder)) + OF_RAY > SOCKET_PATH:
        return Finding(
            "temporary folder", f"{folder} is too long for Ray's sockets", "export TMPDIR=/tmp"
        )
    return Finding("temporary folder", str(folder))


def storage() -> Finding:
    """Whether S3 accepts the keys, takes an object and gives it back."""
    there = s3.connect()
    key, content = f"doctor/{os.getpid()}", os.urandom(32)
    there.put(key, content)
    same = there.get(key) == content
    there.delete(key)
    what = f"s3://{there.bucket} at {there.place.shown}"
    if not same:
        return Finding(
            "S3", f"{what} returned other bytes than it got", "use another S3 (STUDY_BUCKET)"
        )
    return Finding("S3", what)


def clock() -> Finding:
    """This machine's clock against the S3 server's."""
    import requests

    place = s3.connect().place
    answer = requests.head(place.endpoint or "https://s3.amazonaws.com", timeout=WAIT_S)
    if (date := answer.headers.get("Date")) is None:
        return Finding("clock", "S3 does not say what time it is")
    told = parsedate_to_datetime(date).timestamp()
    skew = time.time() - told
    amiss = "set this machine's clock (NTP)" if abs(skew) > LARGEST_SKEW_S else ""
    return Finding("clock", f"{skew:+.0f} s against S3's", amiss)


def dvc_remote() -> Finding:
    """Whether DVC's remote is the study's bucket."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "list"], capture_output=True, text=True, check=False
    )
    place = s3.connect().place
    local = Path(".dvc/config.local")
    known = place.endpoint is None or (local.exists() and place.endpoint in local.read_text())
    if done.returncode or f"s3://{place.bucket}/{project()}/dvc" not in done.stdout or not known:
        return Finding("DVC's remote", done.stdout.strip() or done.stderr.strip(), "run `make up`")
    return Finding("DVC's remote", done.stdout.split()[1])


def mlflow() -> Finding:
    """Whether MLflow answers."""
    from pipeline.tracking.address import tracking_uri

    uri = tracking_uri()
    shown = without_password(uri)
    if not uri.startswith(("http://", "https://")):
        return Finding("MLflow", shown)
    import requests

    try:
        status = requests.get(f"{uri}/health", timeout=WAIT_S).status_code
    except requests.RequestException as error:
        return Finding("MLflow", f"{shown}: {type(error).__name__}", f"check {environment.MLFLOW}; "
                       "trainings go on without it, and `make publish` sends the rest")  # fmt: skip
    if status != 200:
        to_do = (
            f"look at that server's log, or check {environment.MLFLOW}; trainings go on without it"
        )
        return Finding("MLflow", f"{shown}: its /health says {status}", to_do)
    return Finding("MLflow", shown)


def ray_cluster() -> Finding:
    """The cluster that RAY_ADDRESS names, or the embedded Ray."""
    if not os.environ.get(environment.CLUSTER):
        return Finding("Ray", "embedded (RAY_ADDRESS is not set)")
    from pipeline.cluster import client

    there = client.Cluster(client.address() or "", "doctor")
    there.require_versions()
    return Finding("Ray", f"{there.address}: {len(there.shapes())} nodes, the same versions")


def gpu() -> Finding:
    """The accelerators of this machine, and whether torch sees them."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return Finding("GPU", "none: trainings run on the CPU")
    import torch

    if not torch.cuda.is_available():
        amiss = "update its driver for torch's CUDA, then `make gpu-check`"
        return Finding("GPU", "there is one, but torch does not see it", amiss)
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Finding("GPU", ", ".join(names))


def ports() -> Finding:
    """Whether the ports that our servers use by default are free; if not, it is no failure."""
    said, defaults = [], {"UI": 5000, "SERVE": 5001, "TEAM": 5002, "RAY": 8265}
    for server, default in defaults.items():
        name = f"STUDY_{server}_PORT"
        port = s3.port_from(name) or default
        said.append(f"{port} is {f'in use (set {name})' if s3.answers(port) else 'free'}")
    return Finding("ports", ", ".join(said))


def keys() -> Finding:
    """Whether the private files are private."""
    names = ("credentials", "connection.json", "ui_token", "serve_token", "ray_token")
    state = s3.state_dir()
    found = [*(state / name for name in names), *state.glob("team_*"), *state.glob("team/user-*")]
    open_ = [path for path in found if path.exists() and path.stat().st_mode & 0o077]
    if open_:
        return Finding(
            "keys", f"others can read {open_[0]}", f"chmod 600 {' '.join(map(str, open_))}"
        )
    return Finding("keys", f"private, in {s3.state_dir()}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    python, packages, hook, disk, memory_and_cores, temporary_folder, storage, clock, keys, dvc_remote,
    mlflow, ray_cluster, ports, gpu,
)  # fmt: skip


def findings() -> Iterator[Finding]:
    """Yields what each check finds; a check that raises an error is a finding too."""
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            yield check()
        except StudyError as error:  # it says what to do
            yield Finding(name, "could not be checked", str(error))
        except Exception as error:  # noqa: BLE001 - the other checks go on
            of_package = isinstance(error, ImportError)
            to_do = "rm -rf .venv, then `make install`" if of_package else "see docs/running.md"
            yield Finding(name, f"{type(error).__name__}: {error}", to_do)


def main() -> int:
    """Prints the findings; returns 1 if there is something to fix, else 0."""
    amiss = 0
    for finding in findings():
        mark = "ok  " if not finding.to_do else "FAIL"
        print(f"{mark} {finding.what:18} {finding.found}")
        if finding.to_do:
            amiss += 1
            print(f"     {'':18} -> {finding.to_do}")
    print("all is well" if not amiss else f"{amiss} to fix")
    return 1 if amiss else 0
