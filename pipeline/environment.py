"""Decides, for all of the study's processes, which of the user's environment variables reach them.

`settle` runs once, before anything else, in every process of the study's virtual environment (`make
install` adds a `study.pth` that calls it), DVC's included; child processes inherit the result. This
module imports only the standard library and raises nothing.

Only STUDY_BUCKET selects another S3, only MLFLOW_TRACKING_URI another MLflow, and only RAY_ADDRESS a Ray
cluster; the variables of a service that is not selected are removed.
"""

import gc
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SETTLED = (
    "STUDY_SETTLED"  # tells children not to settle again: Ray gives its own settings that must stay
)
STATE = "STUDY_STATE_DIR"
BUCKET = "STUDY_BUCKET"
MLFLOW = "MLFLOW_TRACKING_URI"
CLUSTER = "RAY_ADDRESS"
# characters: loaders communicate over sockets in this folder, whose paths are limited to about a hundred
LONGEST_TMPDIR = 64
# loopback, and the clouds' instance metadata services, which Ray's dashboard queries even with usage
# statistics turned off
NEVER_BY_PROXY = ("127.0.0.1", "localhost", "::1", "169.254.169.254", "metadata.google.internal")

# variables with these prefixes are removed, with exceptions; each entry: the prefix, the names that are
# always kept, and the variable that selects another service and, if set, keeps the whole family
FAMILIES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("AWS_", (), BUCKET),
    ("MLFLOW_", (MLFLOW,), MLFLOW),
    ("RAY_", (CLUSTER, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), None),
    ("TUNE_", (), None),
    ("DVC_", ("DVC_SITE_CACHE_DIR", "DVC_PAGER"), None),
    ("RCLONE_", (), None),  # any rclone flag can be set by a variable
    ("OMP_", (), None),  # the row sets the threads
    ("GOMP_", (), None),
    ("KMP_", (), None),
)
BYTECODE = "PYTHONDONTWRITEBYTECODE"
NEVER = (
    BYTECODE,  # each of a study's hundred processes would compile all that it imports again
    "STUDY_S3",  # set by another process's embedded server (pipeline.storage.bucket)
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",  # the endpoint is passed explicitly, not configured
    "NVIDIA_TF32_OVERRIDE",  # the row sets the precision
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "MPLBACKEND",
    "MATPLOTLIBRC",
    "GIT_DIR",  # set in a Git hook that runs the study; the hook's index is not the clone's
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "PYTHONHOME",
    "PYTHONSAFEPATH",  # `python -m` would not find the study
    "PYTHONOPTIMIZE",  # checks are assertions, too
    "PYTHONWARNINGS",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
)
PATHS = "PYTHONPATH"
ALWAYS = {
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # otherwise Ray starts no workers under `uv run`
    "RAY_AUTH_MODE": "token",  # loopback alone does not keep other users of the host out
    # a thread that waits for the other threads of its update soon yields its core to other work
    "GOMP_SPINCOUNT": "1000",
}


def state_dir(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Returns the per-user folder of the embedded services; it may not exist yet."""
    home = environ.get("XDG_STATE_HOME") or "~/.local/state"
    chosen = environ.get(STATE) or f"{home}/resnet-study"
    return Path(os.path.realpath(Path(chosen).expanduser()))


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Removes the variables that must not reach the study, and sets those that must."""
    # by default a tenth of the time to import torch goes into searching it for cycles
    gc.set_threshold(10_000)
    if environ.get(BYTECODE):  # Python has read it already
        sys.dont_write_bytecode = False
    if environ.get(SETTLED):
        return
    for name in list(environ):
        if name in NEVER or not _may_stay(name, environ):
            del environ[name]
    _leave_others_packages(environ)
    environ.update(ALWAYS)
    # DVC's stages run `python`: this must be this environment's, even if DVC copies the study elsewhere
    # (`dvc exp run --temp`), and whichever environment is active
    environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]
    )
    # what either says, and the embedded services and the metadata service: who finds both reads one of them
    said = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
    places = [place for one in said if (place := one.strip())]
    for name in ("no_proxy", "NO_PROXY"):
        environ[name] = ",".join(dict.fromkeys([*places, *NEVER_BY_PROXY]))
    state = state_dir(environ)
    # a remote of the same name there, with a profile, or a folder for the cache, would be the study's
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        environ[name] = str(state / "dvc-config")
    if not environ.get(BUCKET):
        # ~/.aws is not read either: boto3 and DVC take all AWS settings from these two files
        environ["AWS_SHARED_CREDENTIALS_FILE"] = str(state / "credentials")
        environ["AWS_CONFIG_FILE"] = str(state / "no-aws-config")  # never exists
        environ["AWS_EC2_METADATA_DISABLED"] = "true"
    if not environ.get(CLUSTER) or environ[CLUSTER] == _local_cluster(state):
        # Ray's default token file, ~/.ray/auth_token, may be readable by everyone
        environ.pop("RAY_AUTH_TOKEN", None)
        environ["RAY_AUTH_TOKEN_PATH"] = str(state / "ray_token")
    if len(long := environ.get("TMPDIR", "")) > LONGEST_TMPDIR:
        # large files stay there
        environ.setdefault("STUDY_CACHE_DIR", f"{long}/study-cache-{os.getuid()}")
        environ["TMPDIR"] = "/tmp"
    environ[SETTLED] = "1"


def _leave_others_packages(environ: MutableMapping[str, str]) -> None:
    """Removes what PYTHONPATH adds, but for folders of this clone: another numpy would come before the locked one."""
    paths = [
        str(Path(path).absolute()) for path in environ.pop(PATHS, "").split(os.pathsep) if path
    ]
    clone, libraries = Path(__file__).resolve().parents[1], Path(os.__file__).parent
    own = [path for path in paths if Path(path).resolve().is_relative_to(clone)]
    if own:
        environ[PATHS] = os.pathsep.join(own)
    foreign = {*paths} - {*own, str(libraries), str(libraries / "lib-dynload")}
    sys.path[:] = [path for path in sys.path if path not in foreign]  # Python has read it already


def _may_stay(name: str, environ: MutableMapping[str, str]) -> bool:
    for prefix, kept, chooser in FAMILIES:
        if name.startswith(prefix):
            return name in kept or bool(chooser and environ.get(chooser))
    return True


def _local_cluster(state: Path) -> str | None:
    """Returns the address of the local cluster, if its file names one."""
    try:
        return (state / "cluster.address").read_text().strip()
    except OSError:
        return None
