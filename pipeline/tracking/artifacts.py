"""MLflow's artifacts: in the study's bucket, where a server without a place of its own has them, or at a team's."""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

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
from pipeline.tracking.waiting import within

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
CHUNK, LONGEST_S = 1 << 20, 600.0


@dataclass(frozen=True)
class Artifact:
    """A file that a run or model is to have: the sha256 that it is to have and the one that was `read`.

    That is empty if it is not there, and says why if it could not be read.
    """

    path: str
    sha256: str
    read: str
    bytes: int

    @property
    def fault(self) -> str:
        """Says what is wrong, if anything."""
        if self.read == self.sha256:
            return ""
        return f"sha256 {self.read}, wanted {self.sha256}" if self.read else "MLflow names it"


def in_bucket() -> dict[str, str]:
    """Returns the sha256 of the artifacts of all runs that are not deleted, by their keys in the bucket.

    Of another server none are, which `at_server` asks: where it keeps them it does not say, even if it is in this
    bucket (`make team-up`). Raises TrackingError if MLflow does not answer.
    """
    uri = tracking_uri()
    if not uri.startswith(SQLITE) or (uri == HERE and not Path(HERE.removeprefix(SQLITE)).exists()):
        return {}
    return {key_of(place, name): sha256 for place, name, sha256 in _sums(uri)}


def at_server() -> Iterator[Artifact]:
    """Reads the artifacts of `named_at_server` one by one, each within `LONGEST_S`; raises TrackingError."""
    uri = tracking_uri()
    for path, sha256 in named_at_server().items():
        with within(LONGEST_S, f"sent {path}", "`make fsck`"), named(uri):
            found = Artifact(path, sha256, *_digest(uri, path))
        yield found


def named_at_server() -> dict[str, str]:
    """Returns the sha256 of the artifacts that MLflow's server at an address of http(s) is to have, by their paths.

    Of another MLflow none. Raises TrackingError if it does not answer.
    """
    uri = tracking_uri()
    if not uri.startswith("http"):
        return {}
    with within(LONGEST_S, "listed its runs", "`make fsck`"):
        return {
            f"{place.removeprefix(PROXIED)}/{name}": sha256 for place, name, sha256 in _sums(uri)
        }


def _digest(uri: str, path: str) -> tuple[str, int]:
    """Returns what is wrong with an artifact at a server beside its sum, or its sha256; and its bytes."""
    with _asked(uri, f"{ARTIFACTS}/{quote(path)}") as answer:
        if answer.ok:
            digest, count = hashlib.sha256(), 0
            for part in answer.iter_content(CHUNK):
                digest.update(part)
                count += len(part)
            return digest.hexdigest(), count
    # of what is missing some servers say that they failed
    folder, name = posixpath.split(path)
    with _asked(uri, ARTIFACTS, params={"path": folder}) as listed:
        listed.raise_for_status()
        is_there = name in {
            posixpath.basename(one["path"]) for one in listed.json().get("files", ())
        }
    return (f"the server answers {answer.status_code}" if is_there else ""), 0


def _asked(uri: str, endpoint: str, **more: Any) -> Any:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    request, creds = cast(Any, http_request), cast(Any, get_default_host_creds)  # without types
    return request(creds(uri), endpoint, "GET", stream=True, raise_on_status=False, **more)


def _sums(uri: str) -> Iterator[tuple[str, str, str]]:
    """Yields the place, name and sha256 of each artifact that a server is to have."""
    for place, tags in _places_and_tags(uri):
        for tag, value in tags.items() if place.startswith(PROXIED) else ():
            if tag.startswith(SHA256):
                yield place, tag.removeprefix(SHA256), value


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
