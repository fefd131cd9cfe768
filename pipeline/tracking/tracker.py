"""Publishes a study to MLflow: a copy that can be deleted and made again from the files.

Everything is idempotent: a run is found again by its key, and a line of a history is sent only if its
update is not there yet, with a timestamp that is the same in every attempt. So it does not matter how
often, by which process or after what failure a history is published: each line is there once.
"""

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Record
from pipeline.errors import StudyError, TrackingError
from pipeline.git import commit
from pipeline.tracking.address import EXPERIMENT, tracking_uri

Upload = Callable[[str, Path], None]
"""Stores a file under a key of the study's bucket."""
BATCH = 900  # MLflow takes at most 1,000 metrics in one request


@contextmanager
def tolerant() -> Iterator[None]:
    """Turns any failure to publish into a warning: what is missing can be published later."""
    try:
        yield
    except StudyError as error:
        print(f"warning: {error}; `make publish` later sends what is missing", file=sys.stderr)


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Turns whatever MLflow and the libraries beneath it raise into TrackingError."""
    try:
        yield
    except Exception as error:
        # MLflow passes on what SQLAlchemy, boto3 and requests raise; none of it may harm a training
        first = next(iter(str(error).strip().splitlines()), "")
        raise TrackingError(f"MLflow at {uri}: {type(error).__name__}: {first}") from error


class Tracker:
    """One study's parent run and its children; every method may raise TrackingError."""

    def __init__(
        self, study: str, params_digest: str, data_digest: str, bucket: str, upload: Upload
    ) -> None:
        self._uri, self._bucket, self._upload = tracking_uri(), bucket, upload
        self._tags = {"data_digest": data_digest}
        with _named(self._uri):
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic", "urllib3"):  # they log migrations and each retry
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client = MlflowClient(self._uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                self._experiment = self._client.create_experiment(
                    EXPERIMENT, f"s3://{bucket}/mlflow"
                )
            else:
                self._experiment = found.experiment_id
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(self._experiment)
            identity = {"kind": "study", "params_digest": params_digest}
            self.parent = self._run(study, identity, self._tags)

    def child(
        self, kind: str, name: str, key: str, tags: Mapping[str, str] | None = None
    ) -> "Child":
        """Returns the child run of `kind` with this key, created if it does not exist.

        A row that two studies share (its key is the same) belongs to the last one that published it.
        """
        with _named(self._uri):
            more = {"mlflow.parentRunId": self.parent, **self._tags, **(tags or {})}
            run = self._run(name, {"kind": kind, "run_key": key}, more)
        return self._child(run)

    def study(self) -> "Child":
        """Returns the parent run itself."""
        return self._child(self.parent)

    def _child(self, run: str) -> "Child":
        return Child(self._client, self._uri, run, self._bucket, self._upload)

    def _run(self, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> str:
        wanted = {**identity, "mlflow.runName": name}
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        found = self._client.search_runs([self._experiment], query, max_results=1)
        if found:
            run = found[0]
        else:
            first = {**wanted, "commit": commit(), "mlflow.source.name": "dvc repro"}
            run = self._client.create_run(self._experiment, run_name=name, tags=first)
        for tag, value in tags.items():
            if run.data.tags.get(tag) != value:
                self._client.set_tag(run.info.run_id, tag, value)
        identifier: str = run.info.run_id
        return identifier


class Child:
    """A run to which the same things can be published any number of times."""

    def __init__(self, client: Any, uri: str, run_id: str, bucket: str, upload: Upload) -> None:
        self._client, self._uri, self.run_id = client, uri, run_id
        self._bucket, self._upload = f"s3://{bucket}/", upload

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        with _named(self._uri):
            known = self._client.get_run(self.run_id).data.tags
            for tag, value in tags.items():
                if known.get(tag) != value:
                    self._client.set_tag(self.run_id, tag, value)

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters that are not there yet; nested ones with dotted names."""
        from mlflow.entities import Param

        with _named(self._uri):
            known = self._client.get_run(self.run_id).data.params
            new = {name: str(value) for name, value in _flat(params) if name not in known}
            if new:
                self._client.log_batch(self.run_id, params=[Param(*pair) for pair in new.items()])

    def history(self, history: Sequence[Record]) -> None:
        """Logs the lines whose update is not there yet; the step of each metric is the update."""
        from mlflow.entities import Metric

        lines = [asdict(record) for record in history]
        names = [name for name in (lines[0] if lines else ()) if _is_metric(name, lines[0][name])]
        with _named(self._uri):
            run = self._client.get_run(self.run_id)
            known = {m.step for m in self._client.get_metric_history(self.run_id, "val_loss")}
            new = []
            for line in lines:
                if line["update"] not in known:
                    time_ms = int(run.info.start_time + 1000 * line["seconds"])
                    new += [
                        Metric(name, float(line[name]), time_ms, line["update"]) for name in names
                    ]
            width = max(len(names), 1)
            size = BATCH // width * width  # a line is in one request: there whole or not at all
            for first in range(0, len(new), size):
                self._client.log_batch(self.run_id, metrics=new[first : first + size])

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs single values; an unchanged one is not logged again, a changed one replaces the old."""
        from mlflow.entities import Metric

        with _named(self._uri):
            known = self._client.get_run(self.run_id).data.metrics
            now_ms = int(1000 * time.time())  # of several values MLflow shows the latest
            new = [
                Metric(name, float(value), now_ms, 0)
                for name, value in metrics.items()
                if known.get(name) != float(value)
            ]
            if new:
                self._client.log_batch(self.run_id, metrics=new)

    def artifacts(self, files: Sequence[Path]) -> None:
        """Uploads the files whose present content is not there yet."""
        with _named(self._uri):
            run = self._client.get_run(self.run_id)
            tags, place = run.data.tags, run.info.artifact_uri
            for path in files:
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                if tags.get(f"sha256.{path.name}") != sha256:
                    if place.startswith(self._bucket):  # by the client that knows the study's keys
                        self._upload(f"{place.removeprefix(self._bucket)}/{path.name}", path)
                    else:
                        self._client.log_artifact(self.run_id, str(path))
                    self._client.set_tag(self.run_id, f"sha256.{path.name}", sha256)

    def finished(self) -> None:
        """Marks the run as finished."""
        with _named(self._uri):
            if self._client.get_run(self.run_id).info.status != "FINISHED":
                self._client.set_terminated(self.run_id)


def _is_metric(name: str, value: object) -> bool:
    return name != "update" and isinstance(value, int | float)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
