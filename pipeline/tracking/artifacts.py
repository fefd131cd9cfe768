"""MLflow's artifacts in the study's bucket, where a server without a place of its own has them."""

from pathlib import Path
from typing import Any

from pipeline.errors import TrackingError
from pipeline.tracking.address import EXPERIMENT, FOLDER, HERE, PROXIED, tracking_uri

SHA256 = "sha256."  # and the file's name: a tag


def in_bucket() -> dict[str, str]:
    """Returns the sha256 of the artifacts of all runs, also deleted ones, by their keys in the bucket.

    A server of a team's own keeps its artifacts itself: none of them are in the bucket. Raises
    TrackingError if MLflow does not answer.
    """
    uri = tracking_uri()
    if not uri.startswith("sqlite:") or (
        uri == HERE and not Path(HERE.removeprefix("sqlite:///")).exists()
    ):
        return {}
    return {
        f"{FOLDER}/{run.info.artifact_uri.removeprefix(PROXIED)}/{tag.removeprefix(SHA256)}": value
        for run in _runs()
        if run.info.artifact_uri.startswith(PROXIED)
        for tag, value in run.data.tags.items()
        if tag.startswith(SHA256)
    }


def _runs() -> list[Any]:
    try:
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        client = MlflowClient(tracking_uri())
        if (found := client.get_experiment_by_name(EXPERIMENT)) is None:
            return []
        runs, token = list[Any](), None
        while True:
            page = client.search_runs(
                [found.experiment_id], run_view_type=ViewType.ALL, page_token=token
            )
            runs += page
            if not (token := page.token):
                return runs
    except Exception as error:  # MLflow passes on what SQLAlchemy and requests raise
        first = next(iter(str(error).strip().splitlines()), "")
        raise TrackingError(f"MLflow at {tracking_uri()}: {first}") from error
