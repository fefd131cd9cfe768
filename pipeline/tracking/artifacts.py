"""MLflow's artifacts in the study's bucket, where a server without a place of its own has them."""

from collections.abc import Callable
from functools import partial
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
        f"{FOLDER}/{place.removeprefix(PROXIED)}/{tag.removeprefix(SHA256)}": value
        for place, tags in _places_and_tags()
        if place.startswith(PROXIED)
        for tag, value in tags.items()
        if tag.startswith(SHA256)
    }


def _places_and_tags() -> list[tuple[str, dict[str, str]]]:
    """Returns where the artifacts of each run and model are, and its tags."""
    try:
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        client = MlflowClient(tracking_uri())
        if (found := client.get_experiment_by_name(EXPERIMENT)) is None:
            return []
        experiments = [found.experiment_id]
        runs = _all(partial(client.search_runs, experiments, run_view_type=ViewType.ALL))
        models = _all(partial(client.search_logged_models, experiments))
        return [(run.info.artifact_uri, run.data.tags) for run in runs] + [
            (model.artifact_location, model.tags)
            for model in models
            if str(model.status) == "READY"
        ]
    except Exception as error:  # MLflow passes on what SQLAlchemy and requests raise
        first = next(iter(str(error).strip().splitlines()), "")
        raise TrackingError(f"MLflow at {tracking_uri()}: {first}") from error


def _all(search: Callable[..., Any]) -> list[Any]:
    """Returns what all pages of a search have."""
    found, token = list[Any](), None
    while True:
        page = search(page_token=token)
        found += page
        if not (token := page.token):
            return found
