"""What the stages send to MLflow: a row, the search, the ensemble, each as often as one likes."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.local import s3
from pipeline import params
from pipeline.params import Row, Study
from pipeline.storage.trials import TrialStore
from pipeline.tracking.publish import Child, Tracker
from pipeline.training.identity import run_key
from pipeline.training.schedule import Schedule, load_schedule
from pipeline.training.state import parse_history_csv


def tracker_of(study: Study) -> Tracker:
    """Returns the tracker of a study, as it was when it was loaded."""
    data_digest = json.loads(Path("data/digest.json").read_text())["digest"]
    bucket = s3.connect().bucket
    return Tracker(study.study, params.digest(study), data_digest, bucket)


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


def search_result(tracker: Tracker, model: str) -> None:
    """Publishes the search and its trials; their histories are on S3 beside their outcomes."""
    with Path("tuned/trials.csv").open() as file:
        table = list(csv.DictReader(file))
    search = tracker.child("search", f"search {model}", table[0]["search"])
    search.metrics({"best_val_error_pct": float(table[0]["val_error_pct"]), "trials": len(table)})
    search.artifacts([Path("tuned/trials.csv"), Path("tuned/schedule.yaml")])
    search.finished()
    outcomes = TrialStore(s3.connect(), table[0]["search"])
    for line in table:
        trial = tracker.child("trial", f"trial {line['trial'][:8]}", line["trial"])
        trial.params({name: line[name] for name in line if not name.startswith("val_")})
        if line["val_error_pct"]:
            trial.metrics({"final_val_error_pct": float(line["val_error_pct"])})
        outcome = outcomes.get(line["trial"])
        trial.history(outcome["history"] if outcome else [])
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
