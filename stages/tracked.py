"""What the stages send to MLflow: a row, the search, the ensemble, each as often as one likes."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from infra.local import s3
from pipeline import params
from pipeline.params import Row, Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import TRIALS
from pipeline.tracking.follow import Follower, Publisher
from pipeline.tracking.publish import Child, Tracker, tolerant
from pipeline.training.history import parse_history_csv
from pipeline.training.identity import run_key
from pipeline.training.job import TrainJob
from pipeline.training.schedule import Schedule, load_schedule


def tracker_of(study: Study) -> Tracker:
    """Returns the tracker of a study, as it was when it was loaded."""
    storage = s3.connect()
    digest = params.digest(study)
    return Tracker(study.study, digest, data_digest(), storage.bucket, storage.upload)


@contextmanager
def followed(study: Study) -> Iterator[Callable[[TrainJob], Follower]]:
    """While the context lasts, what follows a training shows its progress and publishes its curve.

    MLflow may come up later; nobody waits for it.
    """
    storage = s3.connect()

    @cache  # until it succeeds once
    def tracker() -> Tracker:
        return tracker_of(study)

    @cache
    def run_of(name: str) -> Child:
        row, schedule = study.models[name], load_schedule(Path(study.models[name].schedule))
        key, overridden = run_key(name, row, schedule, data_digest())
        return row_run(tracker(), name, row, schedule, key, overridden)

    def publish(name: str, history: list[dict[str, Any]]) -> None:
        with tolerant():
            run_of(name).history(history)

    with Publisher(publish) as publisher:

        def follow(job: TrainJob) -> Follower:
            facts = CheckpointStore.of(job, storage).facts
            offer = partial(publisher.offer, job.name)
            return Follower(job.name, job.schedule.total_updates, facts, offer)

        yield follow


def data_digest() -> str:
    """Returns the digest of the prepared data set."""
    digest: str = json.loads(Path("data/digest.json").read_text())["digest"]
    return digest


def row_run(
    tracker: Tracker,
    name: str,
    row: Row,
    schedule: Schedule,
    key: str,
    overridden: bool,
) -> Child:
    """Returns the run of a row with its parameters."""
    child = tracker.child("training", name, key, {"run_key_overridden": str(overridden)})
    content = {"file": row.schedule, **schedule.model_dump(mode="json")}
    child.params({**row.model_dump(mode="json"), "schedule": content})
    return child


def row_result(
    tracker: Tracker, name: str, row: Row, scores: dict[str, Any] | None = None,
    pictures: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Publishes a finished row: history, weights, and once it was evaluated scores and pictures."""
    folder = Path("runs") / name
    facts = json.loads((folder / "model.json").read_text())
    schedule, key = load_schedule(Path(row.schedule)), facts["run_key"]
    if run_key(name, row, schedule, facts["data_digest"])[0] != key:
        print(f"{name}: runs/{name} is of other parameters or code: `dvc repro` first; not sent")
        return
    child = row_run(tracker, name, row, schedule, key, facts["run_key_overridden"])
    child.tags({"commit": facts["commit"], "hardware": facts["hardware"]})
    history = parse_history_csv((folder / "history.csv").read_text())
    child.history([vars(record) for record in history])
    # a name of their own: the curves have theirs
    child.metrics({f"final_{name}": value for name, value in numbers(scores or {}).items()})
    files = [folder / "model.safetensors", folder / "model.json", folder / "history.csv", *pictures]
    child.artifacts([file for file in files if file.exists()])
    child.finished()


def search_result(tracker: Tracker, name: str) -> None:
    """Publishes a search and its trials; their histories are on S3."""
    schedule, found = Path(f"tuned/{name}.yaml"), Path(f"tuned/{name}.csv")
    with found.open() as file:
        table = list(csv.DictReader(file))
    search, storage = tracker.child("search", f"search {name}", table[0]["search"]), s3.connect()
    search.metrics({"best_val_error_pct": float(table[0]["val_error_pct"]), "trials": len(table)})
    search.artifacts([found, schedule])
    search.finished()
    for line in table:
        trial = tracker.child("trial", f"trial {name} {line['number']}", line["trial"])
        trial.params({name: line[name] for name in line if not name.startswith("val_")})
        if line["val_error_pct"]:
            trial.metrics({"final_val_error_pct": float(line["val_error_pct"])})
        facts = CheckpointStore(storage, line["trial"], kind=TRIALS).facts()
        trial.history(facts["history"] if facts else [])
        trial.finished()


def ensemble_result(tracker: Tracker, key: str, pictures: Sequence[Path]) -> None:
    """Publishes the ensemble's scores."""
    metrics = json.loads(Path("ensemble/metrics.json").read_text())
    child = tracker.child("ensemble", "ensemble", key)
    child.params({kind: metrics[kind]["members"] for kind in ("declared", "greedy")})
    for kind in ("declared", "greedy"):
        child.metrics({f"{kind}_{name}": value for name, value in numbers(metrics[kind]).items()})
    child.artifacts([Path("ensemble/metrics.json"), *pictures])
    child.finished()


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the plain numbers of a metrics file."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
