"""What of a user's environment reaches the study's processes: decided here, for all of them.

`settle` runs once, before anything else, in every process of the study's virtual environment (`make
install` puts a line into it, `study.pth`), so in DVC's too; its children inherit the outcome. Nothing
but the standard library is imported here, and nothing is raised.

Another S3 is chosen by STUDY_BUCKET alone, another MLflow by MLFLOW_TRACKING_URI, a Ray cluster by
RAY_ADDRESS; what belongs to one that is not chosen does not reach in.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SETTLED = (
    "STUDY_SETTLED"  # set for the children: Ray gives its own processes settings that must stay
)
STATE = "STUDY_STATE_DIR"
BUCKET = "STUDY_BUCKET"
MLFLOW = "MLFLOW_TRACKING_URI"
CLUSTER = "RAY_ADDRESS"
# characters: loaders talk over sockets among temporary files, whose paths may have some hundred
LONGEST_TMPDIR = 64
# loopback, and a cloud's description of its own machine, for which Ray's dashboard asks whatever it is
# told of usage
NEVER_BY_PROXY = ("127.0.0.1", "localhost", "::1", "169.254.169.254", "metadata.google.internal")

# of these families nothing reaches in but what is named; each entry: prefix, kept always, and kept
# where the variable that chooses another service is set
FAMILIES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("AWS_", (), BUCKET),
    ("MLFLOW_", (MLFLOW,), MLFLOW),
    ("RAY_", (CLUSTER, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), None),
    ("TUNE_", (), None),
    ("RCLONE_", (), None),  # each of its flags is a variable
    ("OMP_", (), None),  # threads belong to the row
    ("GOMP_", (), None),
    ("KMP_", (), None),
)
NEVER = (
    "STUDY_S3",  # of another process's embedded server (pipeline.storage.bucket)
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",  # the endpoint is passed, not found
    "NVIDIA_TF32_OVERRIDE",  # precision belongs to the row
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "MPLBACKEND",
    "MATPLOTLIBRC",
    "GIT_DIR",  # of a hook that runs the study: its index is not the clone's
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
)
ALWAYS = {
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would start no worker
    "RAY_AUTH_MODE": "token",  # loopback is not enough
    # a thread that waits for the others of its update soon gives its core to other work
    "GOMP_SPINCOUNT": "1000",
}


def state_dir(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Returns the per-user folder of the embedded services; it may not be there yet."""
    home = environ.get("XDG_STATE_HOME") or "~/.local/state"
    chosen = environ.get(STATE) or f"{home}/resnet-study"
    return Path(os.path.realpath(Path(chosen).expanduser()))


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Takes out of the environment what must not reach the study, and adds what must."""
    if environ.get(SETTLED):
        return
    for name in list(environ):
        if name in NEVER or not _may_stay(name, environ):
            del environ[name]
    environ.update(ALWAYS)
    # DVC's stages say `python`: that of this environment, also where DVC copies the study elsewhere
    # (`dvc exp run --temp`), and whatever is active
    environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]
    )
    for name in ("no_proxy", "NO_PROXY"):  # neither the embedded services nor this machine's cloud
        known = [place for place in environ.get(name, "").split(",") if place]
        environ[name] = ",".join(
            [*known, *(place for place in NEVER_BY_PROXY if place not in known)]
        )
    state = state_dir(environ)
    if not environ.get(BUCKET):
        # nothing of ~/.aws either: for boto3 and DVC these files are the whole of AWS's settings
        environ["AWS_SHARED_CREDENTIALS_FILE"] = str(state / "credentials")
        environ["AWS_CONFIG_FILE"] = str(state / "no-aws-config")  # never there
        environ["AWS_EC2_METADATA_DISABLED"] = "true"
    if not environ.get(CLUSTER) or environ[CLUSTER] == _local_cluster(state):
        # Ray's own file for it, ~/.ray/auth_token, may be readable for all
        environ.pop("RAY_AUTH_TOKEN", None)
        environ["RAY_AUTH_TOKEN_PATH"] = str(state / "ray_token")
    if len(long := environ.get("TMPDIR", "")) > LONGEST_TMPDIR:
        environ.setdefault("STUDY_CACHE_DIR", f"{long}/study-cache")  # large files stay there
        environ["TMPDIR"] = "/tmp"
    environ[SETTLED] = "1"


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
