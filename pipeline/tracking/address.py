"""Where MLflow is, and which of its pages shows a study."""

import os
from urllib.parse import quote

from pipeline.environment import MLFLOW
from pipeline.errors import TrackingError

EXPERIMENT, CHOSEN = "resnet-study", "MLFLOW_EXPERIMENT_NAME"
SHA256 = "sha256."  # and the name of an artifact: a tag
PROXIED = "mlflow-artifacts:/"  # fetched through whatever server serves the runs
FOLDER = "mlflow"  # of the bucket: artifacts, as <run>/artifacts/<file>
COLUMNS = (  # what MLflow's page shows of a study's rows
    *(f"metrics.`final_{name}`" for name in ("test_error_pct", "val_error_pct", "train_error_pct")),
    *(
        f"params.`{name}`"
        for name in ("network.block", "network.depth", "network.shortcut", "seed")
    ),
    "metrics.`final_train_seconds`",
)
SQLITE = "sqlite:///"
HERE = f"{SQLITE}mlflow.db"  # an absolute path could have characters that a URI cannot


def tracking_uri() -> str:
    """Returns `MLFLOW_TRACKING_URI`, or else SQLite in the study's folder, where this process runs."""
    return os.environ.get(MLFLOW) or HERE


def experiment() -> str:
    """Returns the experiment of all studies, or the one that `MLFLOW_EXPERIMENT_NAME` chooses.

    It reaches us only beside an MLflow that is chosen (`pipeline.environment`).
    """
    return os.environ.get(CHOSEN) or EXPERIMENT


def key_of(artifact_uri: str, name: str) -> str:
    """Returns the key in the study's bucket of a file of a run or model, where `make ui`'s server looks for it."""
    return f"{FOLDER}/{artifact_uri.removeprefix(PROXIED)}/{name}"


def page(experiment_id: str) -> str:
    """Returns the part of the UI's address that shows a study's rows, sorted by test error.

    Without `workflowType` MLflow opens an overview for language models.
    """
    rows, order = quote("tags.kind = 'training'"), quote(COLUMNS[0])
    return (
        f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&searchFilter={rows}"
        f"&orderByKey={order}&orderByAsc=true"
    )


def experiment_id(uri: str) -> str:
    """Returns the id of the studies' experiment; raises TrackingError if MLflow does not answer."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        found = MlflowClient(uri).get_experiment_by_name(experiment())
    except MlflowException as error:
        first = next(iter(str(error).splitlines()), "")
        raise TrackingError(f"MLflow at {uri}: {first}: check {MLFLOW}") from error
    return str(found.experiment_id) if found else "0"
