"""A run in MLflow, to which the same things can be published any number of times."""

import hashlib
import platform
import re
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pipeline.checkpoint import Record
from pipeline.errors import StudyError, TrackingError
from pipeline.files import private_folder
from pipeline.paths import ARRAYS
from pipeline.tracking.address import HERE, SHA256, SQLITE, key_of

Upload = Callable[[str, Path], None]
"""Stores a file under a key of the study's bucket."""
MOST_OF_A_DIGEST = 36  # characters that MLflow takes
BATCH = 900  # MLflow takes at most 1,000 metrics in one request
SENT, SENDER = "sent", "sender"  # tags
LEFT = "left in order"  # instead of a sender
SENDERS_LOCK = re.compile(r"sender-[0-9a-f]{32}\.lock")
LOCK_S = 60.0  # another process has as long for what it does to a run
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@contextmanager
def named(uri: str) -> Iterator[None]:
    """Turns whatever MLflow and the libraries beneath it raise into TrackingError."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        # MLflow passes on what SQLAlchemy, boto3 and requests raise; none of it may harm a training
        first = next(iter(str(error).strip().splitlines()), "")
        raise TrackingError(f"MLflow at {uri}: {type(error).__name__}: {first}") from error


def alone(uri: str, what: str) -> FileLock:
    """Returns a lock that the processes of this host share, for what MLflow does not do in one step.

    One of 256, since lock files stay: two things may share it, so who holds one takes no other.
    """
    name = hashlib.sha256(f"{uri} {Path.cwd() if uri == HERE else ''} {what}".encode()).hexdigest()
    return FileLock(private_folder() / f"mlflow-{name[:2]}.lock", timeout=LOCK_S)


def sender(lock: Path) -> str:
    """Returns what `is_gone` tells a run's sender by: this host, and a lock that the sender holds as it lives.

    `lock` is that of `sender_lock`.
    """
    return f"{_host()} {_boot()} {_folder(lock)} {lock.name}"


def sender_lock() -> Path:
    """Returns the place of a new sender's lock."""
    return private_folder() / f"sender-{uuid.uuid4().hex}.lock"


def _host() -> str:
    return f"{platform.node()}-{uuid.getnode():x}"  # many are called localhost


def _boot() -> str:
    """Returns what is another after each start of the host, or a dash where nothing says it."""
    there = Path("/proc/sys/kernel/random/boot_id")
    return there.read_text().strip() if there.exists() else "-"


def _folder(lock: Path) -> str:
    """Returns what tells a folder from another job's or container's of the same name."""
    facts = lock.parent.stat()
    return f"{facts.st_dev}-{facts.st_ino}"


def is_gone(said: str) -> bool:
    """Tells whether a sender of this host is known to live no more, by its tag.

    Others may have written the tag: what it names is a lock of ours in our own folder, or nothing.
    """
    match said.split(" ", 3):
        case host, boot, folder, name if host == _host() and SENDERS_LOCK.fullmatch(name):
            lock = private_folder() / name
        case _:
            return False
    if boot != _boot():
        return True
    try:
        if folder != _folder(lock):
            return False
        lock.stat()
        with FileLock(lock, timeout=0):
            lock.unlink()
    except FileNotFoundError:  # it has left
        return True
    except (Timeout, OSError):  # it lives, or is another user's
        return False
    return True


def make_tables(uri: str) -> None:
    """Makes the SQLite file of a tracking URI, if it is one, and missing: with all its tables, or not at all.

    MLflow fills the file in dozens of steps, and can open it never again if it is killed between two. Such a
    file, which has no experiment, not even the first that MLflow makes at the end, is set aside.
    """
    if not uri.startswith(SQLITE):
        return
    path = Path(uri.removeprefix(SQLITE))
    with alone(uri, "tables"):
        if _has_experiments(path):
            return
        from mlflow import MlflowClient

        if path.exists():
            aside = f"{path}.incomplete"
            print(
                f"warning: {path} is no whole database of MLflow's: it is {aside} now",
                file=sys.stderr,
            )
        # the file and its journals, of which SQLite would apply an old one to a new file
        for journal in ("", "-journal", "-wal", "-shm"):
            Path(f"{path}.part{journal}").unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                Path(f"{path}{journal}").replace(f"{path}.incomplete{journal}")
        MlflowClient(f"{SQLITE}{path}.part").search_experiments(max_results=1)
        Path(f"{path}.part").replace(path)


def _has_experiments(path: Path) -> bool:
    """Tells whether a file is there and filled; of one that cannot be read now, MLflow says why."""
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path)) as database:
            return database.execute("SELECT 1 FROM experiments").fetchone() is not None
    except sqlite3.DatabaseError as error:
        return "no such table" not in str(error)


def all_pages(search: Callable[..., Any], *arguments: object, **options: object) -> list[Any]:
    """Returns what all pages of one of MLflow's searches have."""
    found, token = list[Any](), None
    while True:
        page = search(*arguments, page_token=token, **options)
        found += page
        if not (token := page.token):
            return found


def set_tags(client: Any, run: Any, tags: Mapping[str, str]) -> None:
    """Sets the tags that a run does not have yet, in one request."""
    from mlflow.entities import RunTag

    new = [RunTag(tag, value) for tag, value in tags.items() if run.data.tags.get(tag) != value]
    if new:
        client.log_batch(run.info.run_id, tags=new)


class Child:
    """A run, found or made by `pipeline.tracking.tracker`."""

    def __init__(self, client: Any, uri: str, run_id: str, upload: Upload) -> None:
        self._client, self._uri, self.run_id, self._upload = client, uri, run_id, upload

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        with named(self._uri):
            set_tags(self._client, self._client.get_run(self.run_id), tags)

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters that are not there yet; nested ones with dotted names."""
        from mlflow.entities import Param

        with named(self._uri):
            known = self._client.get_run(self.run_id).data.params
            new = {name: str(value) for name, value in _flat(params) if name not in known}
            if new:
                self._client.log_batch(self.run_id, params=[Param(*pair) for pair in new.items()])

    def uses(self, data_digest: str, splits: Sequence[str]) -> None:
        """Notes that the run used splits of the prepared data, once each."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        digest = data_digest[:MOST_OF_A_DIGEST]
        with named(self._uri):
            known = {
                one.dataset.digest
                for one in self._client.get_run(self.run_id).inputs.dataset_inputs
            }
            if digest not in known:
                data = Dataset("prepared data", digest, "dvc", str(ARRAYS))
                tags = [InputTag("mlflow.data.context", ", ".join(splits))]
                self._client.log_inputs(self.run_id, [DatasetInput(data, tags)])

    def history(self, history: Sequence[Record], usage: Sequence[Mapping[str, float]] = ()) -> None:
        """Logs the lines whose update is not there yet; the step of each metric is the update.

        `usage` are further figures that go with the lines, of as many of them as there are.
        """
        from mlflow.entities import Metric

        with named(self._uri), alone(self._uri, self.run_id):
            run = self._client.get_run(self.run_id)
            known = {m.step for m in self._client.get_metric_history(self.run_id, "val_loss")}
            requests: list[list[Metric]] = [[]]
            for place, record in enumerate(history):
                if record.update in known:
                    continue
                values = {**asdict(record), **(usage[place] if place < len(usage) else {})}
                time_ms = int(run.info.start_time + 1000 * record.seconds)
                line = [
                    Metric(name, float(value), time_ms, record.update)
                    for name, value in values.items()
                    if _is_metric(name, value)
                ]
                if len(requests[-1]) + len(line) > BATCH:
                    requests.append([])
                requests[-1] += line  # in one request: there whole or not at all
            for metrics in filter(None, requests):
                self._client.log_batch(self.run_id, metrics=metrics)

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs single values; an unchanged one is not logged again, a changed one replaces the old."""
        from mlflow.entities import Metric

        with named(self._uri):
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
        """Uploads the files whose present content is not there yet.

        While a file is replaced the run has no sum of it, so that an interruption never leaves a wrong one.
        """
        with named(self._uri):
            run = self._client.get_run(self.run_id)
            place = run.info.artifact_uri
            for path in files:
                sha256, tag = hashlib.sha256(path.read_bytes()).hexdigest(), f"{SHA256}{path.name}"
                if run.data.tags.get(tag) != sha256:
                    if tag in run.data.tags:
                        self._client.delete_tag(self.run_id, tag)
                    if self._uri.startswith(SQLITE):  # there, where `make ui`'s server looks for it
                        self._upload(key_of(place, path.name), path)
                    else:
                        self._client.log_artifact(self.run_id, str(path))
                    # at once: whoever is interrupted has the others to send, and not all again
                    set_tags(self._client, run, {tag: sha256})

    def status(self, status: Status) -> None:
        """Says how the training is; one that is finished stays so."""
        with named(self._uri):
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
