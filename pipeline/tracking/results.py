"""What a study sends to MLflow: rows, searches, the ensemble, each any number of times."""

import csv
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import params, paths
from pipeline.errors import DataError, ResourceError, SlowServerError, TrackingError
from pipeline.models import weights
from pipeline.models.weights import ModelFacts
from pipeline.params import Row, Sharded, Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import SEARCHES, TRIALS, Instances
from pipeline.storage.objects import Storage
from pipeline.tracking import models, registry
from pipeline.tracking.follow import Follower
from pipeline.tracking.run import Child
from pipeline.tracking.sending import Sender
from pipeline.tracking.tracker import Address, Tracker
from pipeline.training.history import parse_history_csv
from pipeline.training.result import HISTORY
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training


def address_of(study: Study) -> Address:
    """Returns what a study's run is found by, as the study was when it was loaded."""
    return Address(study.study, params.digest(study), data_digest())


@contextmanager
def followed(
    study: Study, storage: Storage, *, here: bool
) -> Iterator[Callable[[Training], Follower]]:
    """Yields a function whose followers, while the context lasts, show progress and publish curves.

    A process of its own publishes (`pipeline.tracking.sending`), for which nothing waits. `here` says that the
    trainings end with this process; those on a cluster go on.
    """
    with Sender(address_of(study), here=here) as sender:

        def follow(training: Training) -> Follower:
            return Follower(
                training.name, training.schedule.total_updates,
                CheckpointStore.of(training, storage).facts, partial(sender.tell, said_of(training)),
                lost=() if here else ResourceError,
            )  # fmt: skip

        yield follow


def data_digest() -> str:
    """Returns the digest of the prepared data set."""
    digest: str = json.loads(paths.DIGEST.read_text())["digest"]
    return digest


NOTE = "mlflow.note.content"  # what MLflow's page shows as a run's description


def said_of(training: Training) -> dict[str, Any]:
    """Returns what a training's run is found by, its tags and its parameters, as a JSON document."""
    content = {"file": training.row.schedule, **training.schedule.model_dump(mode="json")}
    return {
        "name": training.name,
        "key": training.key,
        "instance": training.instance,
        "tags": {"run_key_overridden": str(training.overridden)},
        "params": {**training.row.model_dump(mode="json"), "schedule": content},
    }


def row_result(
    tracker: Tracker,
    study: Study,
    name: str,
    group: str,
    network: str,
    scores: dict[str, Any],
    pictures: Sequence[Path],
    storage: Storage,
) -> None:
    """Publishes a row: history, weights, scores, pictures, and its model.

    `group` is equal for rows that differ in seed, and `network` is the name of the first of them. Raises
    DataError if what is here is not the row's result.
    """
    folder = paths.run(name)
    facts = weights.look(folder)
    child = _run_of(tracker, name, study.models[name], facts, storage)
    child.tags({
        "commit": facts.commit, "hardware": facts.hardware, "group": group,
        "weights": f"dvc pull train@{name}", "weights_sha256": facts.sha256,
        NOTE: f"`dvc pull train@{name}` at commit {facts.commit[:12]} fetches these weights.",
    })  # fmt: skip
    child.uses(facts.data_digest, ("train", "val"))  # runs of earlier code were made without
    # prefixed, since the curves have the plain names
    child.metrics({f"final_{name}": value for name, value in numbers(scores).items()})
    files = [folder / "model.safetensors", folder / "model.json", folder / HISTORY, *pictures]
    child.artifacts([file for file in files if file.exists()])
    tags = {
        "row": name, "run_key": facts.run_key, "instance": str(facts.instance), "commit": facts.commit,
        "weights_sha256": facts.sha256, registry.VAL_ERROR: str(scores["val_error_pct"]),
    }  # fmt: skip
    if (folder / paths.WEIGHTS).exists():  # else not pulled
        making = partial(save, study=study, members=[name])
        _register(tracker, child, name, network, tags, making)
    child.completed(digest_of_row(name))


def _run_of(tracker: Tracker, name: str, row: Row, facts: ModelFacts, storage: Storage) -> Child:
    """Returns the run of a row's training, with its history; raises DataError if `facts` are of another one's result."""
    training = Training.of(name, row, load_schedule(Path(row.schedule)), facts.data_digest)
    key, overridden = facts.run_key, facts.run_key_overridden
    # of a result that was pulled from elsewhere, S3 here may have nothing, or another training's
    began = CheckpointStore(storage, key, instance=facts.instance).facts()
    # a person may have chosen to go on with what other code began
    chosen = overridden and began is not None and training.is_of(began)
    if training.key != key and not chosen:
        raise DataError(
            f"{name}: {paths.run(name)} is of other parameters or code: not sent; run `dvc repro` first"
        )
    same = replace(training, key=key, overridden=overridden, instance=facts.instance)
    history = parse_history_csv((paths.run(name) / HISTORY).read_text())
    child = tracker.training(said_of(same), history)
    is_this = began is not None and began.history[0] == history[0]
    child.history(history, began.usage if began and is_this else ())
    return child


def exported(
    tracker: Tracker, name: str, row: Row, files: Sequence[Path], storage: Storage
) -> None:
    """Lays files of an exported network beside a row's weights and model; raises TrackingError, and
    DataError if what is here is not the row's result."""
    child = _run_of(tracker, name, row, weights.look(paths.run(name)), storage)
    child.artifacts(files)
    child.status("FINISHED")


def save(folder: Path, study: Study, members: Sequence[str]) -> None:
    """Writes an MLflow model of trained rows, whose probabilities it averages, to a new folder."""
    runs = [paths.run(member) for member in members]
    models.save(folder, members, runs, photographs=isinstance(study.data, Sharded))


def digest_of_row(name: str) -> str:
    """Returns a digest of what is published of a row: equal to what was sent, there is nothing to send."""
    files = (paths.run(name) / "model.json", paths.scores(name) / paths.METRICS)
    content = b"".join(file.read_bytes() for file in files)
    model = b"with a model" if (paths.run(name) / paths.WEIGHTS).exists() else b""
    return hashlib.sha256(content + model).hexdigest()[:16]


def search_result(tracker: Tracker, name: str, storage: Storage) -> None:
    """Publishes a search and its trials with their curves."""
    schedule, found = paths.chosen(name), paths.trials(name)
    with found.open() as file:
        table = list(csv.DictReader(file))
    key = table[0]["search"]
    number = Instances(storage, SEARCHES, key).current()
    search = tracker.child("search", f"search {name}", key, instance=number)
    search.metrics({"best_val_error_pct": float(table[0]["val_error_pct"]), "trials": len(table)})
    search.artifacts([found, schedule, paths.trial_curves(name)])
    for line in table:
        store = CheckpointStore(storage, line["trial"], kind=TRIALS)
        facts = store.facts()
        history = facts.history if facts else ()
        trial = tracker.child(
            "trial", f"trial {name} {line['number']}", line["trial"],
            instance=store.instance.number, history=history,
        )  # fmt: skip
        trial.params({name: line[name] for name in line if not name.startswith("val_")})
        if line["val_error_pct"]:
            trial.metrics({"final_val_error_pct": float(line["val_error_pct"])})
        trial.history(history, facts.usage if facts else ())
        trial.status("FINISHED")
    search.completed(digest_of_search(name, storage))


def has_search(
    complete: Collection[tuple[str, str, str, str]], name: str, storage: Storage
) -> bool:
    """Tells whether MLflow has a search and a run of each of its trials; `complete` is `Tracker.complete`'s."""
    with paths.trials(name).open() as file:
        trials = {line["trial"] for line in csv.DictReader(file)}
    sent = digest_of_search(name, storage)
    there = {key for kind, key, _, _ in complete if kind == "trial"}
    return trials <= there and any(one[-1] == sent for one in complete)


def digest_of_search(name: str, storage: Storage) -> str:
    """Returns a digest of what is published of a search, and of its instance."""
    content = paths.trials(name).read_bytes()
    key = next(csv.DictReader(content.decode().splitlines()))["search"]
    number = Instances(storage, SEARCHES, key).current()
    return hashlib.sha256(content + str(number).encode()).hexdigest()[:16]


def ensemble_result(tracker: Tracker, study: Study, pictures: Sequence[Path]) -> None:
    """Publishes the ensembles' scores, and the declared one as a model."""
    metrics, key = json.loads((paths.ENSEMBLE / paths.METRICS).read_text()), params.digest(study)
    child = tracker.child("ensemble", "ensemble", key)
    child.params({"declared": metrics["declared"]["members"]})
    child.tags(
        {"greedy": ", ".join(metrics["greedy"]["members"])}
    )  # others if a row is trained afresh
    for kind in ("declared", "greedy"):
        child.metrics({f"{kind}_{name}": value for name, value in numbers(metrics[kind]).items()})
    child.artifacts([paths.ENSEMBLE / paths.METRICS, *pictures])
    members = study.ensemble.members
    sums = [weights.look(paths.run(member)).sha256 for member in members]
    tags = {
        "members": ", ".join(members), "params_digest": key,
        "weights_sha256": hashlib.sha256(" ".join(sums).encode()).hexdigest(),
        registry.VAL_ERROR: str(metrics["declared"]["val_error_pct"]),
    }  # fmt: skip
    making = partial(save, study=study, members=members)
    are_here = all((paths.run(member) / paths.WEIGHTS).exists() for member in members)
    if are_here:
        _register(tracker, child, "ensemble", "ensemble", tags, making)
    child.completed(key)


def _register(
    tracker: Tracker, child: Child, name: str, network: str, tags: dict[str, str],
    making: Callable[[Path], None],
) -> None:  # fmt: skip
    """Logs and registers a model; raises DataError, with the rest of the run sent, if MLflow did not take it.

    A server may be too old for models, or refuse some users its registry: that must not keep the rest back.
    """
    try:
        tracker.model(child, name, network, tags, making)
    except SlowServerError:
        raise
    except TrackingError as error:
        child.status("FINISHED")
        raise DataError(f"{name}: no model: {error}") from error


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the plain numbers of a metrics file."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
