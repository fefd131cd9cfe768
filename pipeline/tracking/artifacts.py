"""MLflow's artifacts in the study's bucket, where a server without a place of its own has them."""

from pathlib import Path

from pipeline.tracking.address import (
    HERE,
    PROXIED,
    SHA256,
    SQLITE,
    experiment,
    key_of,
    tracking_uri,
)
from pipeline.tracking.run import all_pages, named


def in_bucket() -> dict[str, str]:
    """Returns the sha256 of the artifacts of all runs that are not deleted, by their keys in the bucket.

    Of another server none are: where it keeps them it does not say, even if it is in this bucket
    (`make team-up`). Raises TrackingError if MLflow does not answer.
    """
    uri = tracking_uri()
    if not uri.startswith(SQLITE) or (uri == HERE and not Path(HERE.removeprefix(SQLITE)).exists()):
        return {}
    return {
        key_of(place, tag.removeprefix(SHA256)): value
        for place, tags in _places_and_tags(uri)
        if place.startswith(PROXIED)
        for tag, value in tags.items()
        if tag.startswith(SHA256)
    }


def _places_and_tags(uri: str) -> list[tuple[str, dict[str, str]]]:
    """Returns where the artifacts of each run and model are, and its tags."""
    with named(uri):
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        if (found := client.get_experiment_by_name(experiment())) is None:
            return []
        experiments = [found.experiment_id]
        runs = all_pages(client.search_runs, experiments)
        models = all_pages(client.search_logged_models, experiments)
    there = {run.info.run_id for run in runs}
    return [(run.info.artifact_uri, run.data.tags) for run in runs] + [
        (model.artifact_location, model.tags)
        for model in models
        if str(model.status) == "READY" and model.source_run_id in there
    ]
