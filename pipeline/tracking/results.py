"""What a study sends to MLflow: rows, searches, the ensemble, each any number of times."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline import params, paths
from pipeline.checkpoint import Record
from pipeline.models import weights
from pipeline.params import Row, Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import TRIALS
from pipeline.storage.objects import Storage
from pipeline.tracking.follow import Follower, Publisher
from pipeline.tracking.tracker import Child, Tracker, tolerant
from pipeline.training.history import parse_history_csv
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training


def tracker_of(study: Study, storage: Storage) -> Tracker:
    """Returns the tracker of a study, as the study was when it was loaded."""
    digest = params.digest(study)
    return Tracker(study.study, digest, data_digest(), storage.bucket, storage.upload)


@contextmanager
def followed(study: Study, storage: Storage) -> Iterator[Callable[[Training], Follower]]:
    """Yields a function whose followers, while the context lasts, show progress and publish curves.

    MLflow may come up later; nothing waits for it.
    """

    known: dict[str, Training] = {}

    @cache  # a failure is not cached: it is tried until it succeeds once
    def tracker() -> Tracker:
        return tracker_of(study, storage)

    @cache
    def run_of(name: str) -> Child:
        return row_run(tracker(), known[name])

    def publish(name: str, history: Sequence[Record]) -> None:
        with tolerant():
            run_of(name).history(history)

    with Publisher(publish) as publisher:

        def follow(training: Training) -> Follower:
            known[training.name] = training
            facts = CheckpointStore.of(training, storage).facts
            offer = partial(publisher.offer, training.name)
            return Follower(training.name, training.schedule.total_updates, facts, offer)

        yield follow


def data_digest() -> str:
    """Returns the digest of the prepared data set."""
    digest: str = json.loads(paths.DIGEST.read_text())["digest"]
    return digest


def row_run(tracker: Tracker, training: Training) -> Child:
    """Returns the MLflow run of a row, with its parameters logged."""
    overridden = {"run_key_overridden": str(training.overridden)}
    child = tracker.child("training", training.name, training.key, overridden)
    content = {"file": training.row.schedule, **training.schedule.model_dump(mode="json")}
    child.params({**training.row.model_dump(mode="json"), "schedule": content})
    return child


def row_result(
    tracker: Tracker, name: str, row: Row, scores: dict[str, Any] | None = None,
    pictures: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Publishes a finished row: history, weights, and once it is evaluated also scores and pictures."""
    folder = paths.run(name)
    facts = weights.look(folder)
    training = Training.of(name, row, load_schedule(Path(row.schedule)), facts.data_digest)
    if training.key != facts.run_key:
        print(f"{name}: {folder} is of other parameters or code: not sent; run `dvc repro` first")
        return
    child = row_run(tracker, replace(training, overridden=facts.run_key_overridden))
    child.tags({"commit": facts.commit, "hardware": facts.hardware})
    history = parse_history_csv((folder / "history.csv").read_text())
    child.history(history)
    # prefixed, since the curves have the plain names
    child.metrics({f"final_{name}": value for name, value in numbers(scores or {}).items()})
    files = [folder / "model.safetensors", folder / "model.json", folder / "history.csv", *pictures]
    child.artifacts([file for file in files if file.exists()])
    child.finished()


def search_result(tracker: Tracker, name: str, storage: Storage) -> None:
    """Publishes a search and its trials, whose histories are on S3."""
    schedule, found = paths.chosen(name), paths.trials(name)
    with found.open() as file:
        table = list(csv.DictReader(file))
    search = tracker.child("search", f"search {name}", table[0]["search"])
    search.metrics({"best_val_error_pct": float(table[0]["val_error_pct"]), "trials": len(table)})
    search.artifacts([found, schedule])
    search.finished()
    for line in table:
        trial = tracker.child("trial", f"trial {name} {line['number']}", line["trial"])
        trial.params({name: line[name] for name in line if not name.startswith("val_")})
        if line["val_error_pct"]:
            trial.metrics({"final_val_error_pct": float(line["val_error_pct"])})
        facts = CheckpointStore(storage, line["trial"], kind=TRIALS).facts()
        trial.history(facts.history if facts else ())
        trial.finished()


def ensemble_result(tracker: Tracker, key: str, pictures: Sequence[Path]) -> None:
    """Publishes the ensemble's scores."""
    metrics = json.loads((paths.ENSEMBLE / paths.METRICS).read_text())
    child = tracker.child("ensemble", "ensemble", key)
    child.params({kind: metrics[kind]["members"] for kind in ("declared", "greedy")})
    for kind in ("declared", "greedy"):
        child.metrics({f"{kind}_{name}": value for name, value in numbers(metrics[kind]).items()})
    child.artifacts([paths.ENSEMBLE / paths.METRICS, *pictures])
    child.finished()


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the plain numbers of a metrics file."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
