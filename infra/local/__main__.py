"""`python -m infra.local up|down|status|ui|cluster-up|cluster-down`: the local services."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from infra.local import s3
from pipeline.errors import StudyError, without_password
from pipeline.tracking.address import tracking_uri


def up() -> None:
    """Starts the S3 server if need be and points DVC's remote at the bucket."""
    external = s3.is_external()
    storage = s3.connect()
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or "us-east-1"
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    settings = {"url": f"s3://{storage.bucket}/dvc", "endpointurl": endpoint}
    if not external:
        settings |= {"credentialpath": str(s3.credentials_file()), "profile": "default"}
    for name, value in settings.items():
        _dvc("remote", "modify", "--local", "s3", name, value)
    for name in {"credentialpath", "profile"} - settings.keys():
        with contextlib.suppress(StudyError):  # it may not be set
            _dvc("remote", "modify", "--local", "--unset", "s3", name)
    kind = "external" if external else "embedded"
    print(f"S3 ({kind}): s3://{storage.bucket} at {endpoint}; DVC's remote points at it")


def _dvc(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise StudyError(f"dvc {' '.join(arguments[:3])} failed: {done.stderr.strip()}")


def down() -> None:
    """Stops the embedded S3 server; its data stay."""
    print("stopped the embedded S3 server" if s3.stop() else "no embedded S3 server is running")


def cluster_up() -> None:
    """Starts the local Ray cluster."""
    from infra.local import cluster

    address = cluster.up()
    print(f"Ray cluster: a head and {cluster.WORKERS} workers; dashboard and Jobs API at {address}")
    print(f"to train there: export RAY_ADDRESS={address}")


def cluster_down() -> None:
    """Stops the local Ray cluster; its jobs end with it, their checkpoints stay."""
    from infra.local import cluster

    print("stopped the local Ray cluster" if cluster.down() else "no local Ray cluster is running")


def status() -> None:
    """Says what runs and where its data are."""
    server = s3.running()
    print(
        f"embedded S3: {f'{server.endpoint} (process {server.pid})' if server else 'not running'}"
    )
    print(f"its data, keys and log: {s3.state_dir()}")


def ui() -> None:
    """Serves the MLflow UI on loopback until interrupted."""
    uri = tracking_uri(Path.cwd())
    if uri.startswith(("http://", "https://")):
        print(f"MLflow UI: {without_password(uri)} (MLFLOW_TRACKING_URI)")
        return
    s3.connect()
    port = s3.port_from("STUDY_UI_PORT") or 5000
    if s3.answers(port):
        raise StudyError(f"port {port} is in use: set STUDY_UI_PORT to a free one")
    print(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    mlflow = str(Path(sys.executable).parent / "mlflow")
    command = [mlflow, "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(mlflow, command, environment)


if __name__ == "__main__":
    commands = {
        "up": up, "down": down, "status": status, "ui": ui,
        "cluster-up": cluster_up, "cluster-down": cluster_down,
    }  # fmt: skip
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"usage: python -m infra.local {'|'.join(commands)}")
    try:
        commands[sys.argv[1]]()
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")
