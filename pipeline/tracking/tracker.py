"""Publishes a study to MLflow: a copy that can be deleted and made again from the files.

Everything is idempotent: a run is found again by its key and instance, and a line of a history is sent only
if its update is not there yet, with a timestamp that is the same in every attempt. So it does not matter how
often, by which process or after what failure a history is published: each line is there once.

Processes of one host make a run one after another, under a lock. Two hosts could make the same run at the
same moment: who finds an older one beside its own deletes its own.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from pipeline.checkpoint import Record
from pipeline.errors import TrackingError
from pipeline.files import private_folder
from pipeline.git import commit
from pipeline.tracking.address import EXPERIMENT, FOLDER, HERE, PROXIED, tracking_uri
from pipeline.tracking.artifacts import SHA256

Upload = Callable[[str, Path], None]
"""Stores a file under a key of the study's bucket."""
BATCH = 900  # MLflow takes at most 1,000 metrics in one request
IDENTITY = ("kind", "run_key", "instance")  # tags
SENT, SUPERSEDED = "sent", "superseded_by"
LOCK_S = 60.0  # another process has as long for what it does to a run
PAGE = 1000  # runs in one answer of MLflow
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Parts = Mapping[str, str]


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Turns whatever MLflow and the libraries beneath it raise into TrackingError."""
    try:
        yield
    except Exception as error:
        # MLflow passes on what SQLAlchemy, boto3 and requests raise; none of it may harm a training
        first = next(iter(str(error).strip().splitlines()), "")
        raise TrackingError(f"MLflow at {uri}: {type(error).__name__}: {first}") from error


@dataclass(frozen=True)
class Address:
    """What a study's own run is found by."""

    study: str
    params_digest: str
    data_digest: str


class Tracker:
    """One study's parent run and its children; every method may raise TrackingError."""

    def __init__(self, address: Address, upload: Upload) -> None:
        study = address.study
        self._uri, self._upload = tracking_uri(), upload
        self._is_here = self._uri.startswith("sqlite:")
        self._study, self._tags = study, {"data_digest": address.data_digest}
        with _named(self._uri):
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic", "urllib3"):  # they log migrations and each retry
                logging.getLogger(name).setLevel(logging.ERROR)
            with _alone(self._uri, EXPERIMENT):  # the first one makes the tables of SQLite
                self._client = MlflowClient(self._uri)
                found = self._client.get_experiment_by_name(EXPERIMENT)
                if found and self._is_here and found.artifact_location.startswith("s3://"):
                    # of an earlier version: only who has the keys of S3 could fetch its artifacts
                    aside = f"{EXPERIMENT} before {time.strftime('%Y-%m-%d %H:%M:%S')}"
                    if found.lifecycle_stage == "deleted":
                        self._client.restore_experiment(found.experiment_id)
                    self._client.rename_experiment(found.experiment_id, aside)
                    found = None
                if found is None:
                    place = PROXIED if self._is_here else None  # a server has its own
                    self._experiment = self._client.create_experiment(EXPERIMENT, place)
                else:
                    self._experiment = found.experiment_id
                    if found.lifecycle_stage == "deleted":
                        self._client.restore_experiment(self._experiment)
            identity = {"kind": "study", "params_digest": address.params_digest}
            self.parent = self._run(study, identity, {**self._tags, "study": study})

    def child(
        self, kind: str, name: str, key: str, tags: Parts | None = None, instance: int = 1
    ) -> "Child":
        """Returns the child run of `kind` with this key and instance, created if it does not exist.

        A further instance is linked to the one before. A row that two studies share (its key is the same)
        belongs to the last one that published it.
        """
        with _named(self._uri):
            more = {"mlflow.parentRunId": self.parent, **self._tags, **(tags or {})}
            identity = {"kind": kind, "run_key": key}
            if instance > 1:
                before = self._find({**identity, **_numbered(instance - 1)})
                more |= {"instance_before": before[0].info.run_id} if before else {}
            run = self._run(name, {**identity, **_numbered(instance)}, more)
        return self._child(run)

    def training(self, said: Mapping[str, Any]) -> "Child":
        """Returns the run of a training as `pipeline.tracking.results.said_of` describes it."""
        run = self.child("training", said["name"], said["key"], said["tags"], said["instance"])
        run.params(said["params"])
        return run

    def complete(self) -> dict[tuple[str, str, str], str]:
        """Returns what was sent of the study's runs that are complete (`Child.completed`), by kind, key and instance."""
        found: dict[tuple[str, str, str], str] = {}
        token = None
        query = f"tags.`mlflow.parentRunId` = '{self.parent}'"
        with _named(self._uri):
            while True:
                page = self._client.search_runs(
                    [self._experiment], query, max_results=PAGE, page_token=token
                )
                for tags in (run.data.tags for run in page):
                    kind, key, number = (tags.get(name, "") for name in IDENTITY)
                    found[kind, key, number] = tags.get(SENT, "")
                if not (token := page.token):
                    return found

    def supersede(self) -> None:
        """Marks the study's runs of other parameters as superseded by this one."""
        of_study = f"tags.kind = 'study' and tags.study = '{self._study}'"
        with _named(self._uri):
            for run in self._client.search_runs([self._experiment], of_study):
                present, known = run.info.run_id == self.parent, run.data.tags.get(SUPERSEDED)
                if present and known:
                    self._client.delete_tag(self.parent, SUPERSEDED)
                elif not present and known != self.parent:
                    self._client.set_tag(run.info.run_id, SUPERSEDED, self.parent)

    def study(self) -> "Child":
        """Returns the parent run itself."""
        return self._child(self.parent)

    def _child(self, run: str) -> "Child":
        return Child(self._client, self._uri, run, self._upload)

    def _find(self, wanted: Parts) -> list[Any]:
        """Returns the runs that have these tags, the oldest first."""
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        found = self._client.search_runs([self._experiment], query)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _run(self, name: str, identity: Parts, tags: Parts) -> str:
        with _alone(self._uri, self._experiment):
            run = next(iter(self._find(identity)), None) or self._create(name, identity)
        wanted = {**tags, "mlflow.runName": name}
        for tag, value in wanted.items():
            if run.data.tags.get(tag) != value:
                self._client.set_tag(run.info.run_id, tag, value)
        identifier: str = run.info.run_id
        return identifier

    def _create(self, name: str, identity: Parts) -> Any:
        first = {**identity, "commit": commit(), "mlflow.source.name": "dvc repro"}
        mine = self._client.create_run(self._experiment, run_name=name, tags=first)
        oldest = next(iter(self._find(identity)), mine)
        if oldest.info.run_id != mine.info.run_id:
            self._client.delete_run(mine.info.run_id)
        return oldest


def _numbered(instance: int) -> dict[str, str]:
    return {"instance": str(instance)}


def _alone(uri: str, what: str) -> FileLock:
    """Returns a lock that the processes of this host share, for what MLflow does not do in one step."""
    name = hashlib.sha256(f"{uri} {Path.cwd() if uri == HERE else ''} {what}".encode()).hexdigest()[
        :16
    ]
    return FileLock(private_folder() / f"mlflow-{name}.lock", timeout=LOCK_S)


class Child:
    """A run to which the same things can be published any number of times."""

    def __init__(self, client: Any, uri: str, run_id: str, upload: Upload) -> None:
        self._client, self._uri, self.run_id, self._upload = client, uri, run_id, upload

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

    def uses(self, name: str, digest: str, source: str, splits: Sequence[str]) -> None:
        """Notes that the run used splits of a data set, once each."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        with _named(self._uri):
            known = {
                one.dataset.digest
                for one in self._client.get_run(self.run_id).inputs.dataset_inputs
            }
            if digest not in known:
                data = Dataset(name, digest, "dvc", source)
                tags = [InputTag("mlflow.data.context", ", ".join(splits))]
                self._client.log_inputs(self.run_id, [DatasetInput(data, tags)])

    def history(self, history: Sequence[Record]) -> None:
        """Logs the lines whose update is not there yet; the step of each metric is the update."""
        from mlflow.entities import Metric

        lines = [asdict(record) for record in history]
        names = [name for name in (lines[0] if lines else ()) if _is_metric(name, lines[0][name])]
        with _named(self._uri), _alone(self._uri, self.run_id):
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
                if tags.get(f"{SHA256}{path.name}") != sha256:
                    if self._uri.startswith(
                        "sqlite:"
                    ):  # there, where `make ui`'s server looks for it
                        self._upload(f"{FOLDER}/{place.removeprefix(PROXIED)}/{path.name}", path)
                    else:
                        self._client.log_artifact(self.run_id, str(path))
                    self._client.set_tag(self.run_id, f"{SHA256}{path.name}", sha256)

    def status(self, status: Status) -> None:
        """Says how the training is; one that is finished stays so."""
        with _named(self._uri):
            known = self._client.get_run(self.run_id).info.status
            if status == known or known == "FINISHED":
                return
            if status == "RUNNING":
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status)

    def completed(self, sent: str) -> None:
        """Marks the run as finished, and as complete; `sent` is a digest of what was sent."""
        self.status("FINISHED")
        self.tags({SENT: sent})


def _is_metric(name: str, value: object) -> bool:
    return name != "update" and isinstance(value, int | float)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
