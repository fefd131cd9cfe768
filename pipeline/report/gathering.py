"""Gathers what the stages wrote into one document, report.json; the page is drawn from it."""

import csv
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paper, paths
from pipeline.command import TIMES
from pipeline.data.sources.account import said
from pipeline.errors import DataError
from pipeline.evaluation import predictions
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.scores import Predictions, outcomes_of
from pipeline.models import weights
from pipeline.params import (
    ImageNetData,
    Study,
    canonical_sha256,
)
from pipeline.report import reference
from pipeline.report.claims.asking import is_the_papers_recipe, verdicts
from pipeline.report.claims.inference import Errors
from pipeline.report.claims.networks import WITH_WARM_UP, WITHOUT_WARM_UP, Wrong, networks_of
from pipeline.report.predicted import bins_of, confusion_of, missed_by_all
from pipeline.report.seeds import group_of, groups
from pipeline.training.history import parse_history_csv
from pipeline.training.result import HISTORY
from pipeline.training.schedule import Schedule, load_schedule

PACKAGES = ("torch", "torchvision", "ray", "mlflow", "dvc", "boto3", "numpy", "scipy")
VERSION = 1  # of report.json: raised when what is there changes its name or meaning


def gather(study: Study, root: Path = Path()) -> dict[str, Any]:
    """Returns the study's results as JSON-like values; raises DataError if some are missing."""
    try:
        data = json.loads((root / paths.DIGEST).read_text())
        account = json.loads((root / paths.ACCOUNT).read_text())
        rows = [_row(study, name, root) for name in study.models]
        ensemble = json.loads((root / paths.ENSEMBLE / paths.METRICS).read_text())
        wrong = {name: predictions.wrong(_predictions(name, root)) for name in study.models}
        together = _together(study, ensemble, root)
        searches = [_search(name, tune.model, root) for name, tune in study.tune.items()]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: not found: `dvc repro` creates it") from error
    except KeyError as error:
        raise DataError(
            f"the results lack {error}, since earlier code wrote them: run `dvc repro`"
        ) from error
    grouped, chance = groups(rows), 100 * (1 - 1 / len(data["classes"]))
    members = [wrong[name]["test"] for name in study.ensemble.members]
    results = {
        "version": VERSION,
        "study": study.study,
        "data": {
            "name": study.data.TITLE,
            "archive": getattr(study.data, "archive", None),
            "official": study.data.is_official,
            **data,
            "account": account,
            "said": said(account),
        },
        "chance_error_pct": chance,
        "rows": rows,
        "groups": grouped,
        **_verdicts(study, rows, wrong, ensemble["declared"]["best_member"], together, chance),
        "searches": searches,
        "ensemble": ensemble,
        "missed_by_all": missed_by_all(members, together, data["classes"]),
        "scales_px": study.evaluation.scales_px,
        "plan": _plan(rows, root / paths.PLAN),
        "stages": _stages(),
        "versions": _versions(root),
    }
    return {**results, "reference": _reference(results, root)}


def _verdicts(
    study: Study,
    rows: list[dict[str, Any]],
    wrong: Wrong,
    best: str,
    together: Outcomes,
    chance: float,
) -> dict[str, Any]:
    """Returns the verdicts on the claims, from which images each network gets wrong."""
    alone, all_together = (
        Errors(np.array([images.sum()]), len(images), images[None])
        for images in (wrong[best]["test"], together.wrong())
    )
    networks = networks_of(rows, wrong, chance)
    return verdicts(study, networks, chance, (best, alone), all_together)


def _predictions(name: str, root: Path) -> Path:
    return root / paths.scores(name) / paths.PREDICTIONS


def _together(study: Study, ensemble: dict[str, Any], root: Path) -> Outcomes:
    """Returns the declared ensemble's test outcomes; adds to both ensembles what they show."""
    path = root / paths.ENSEMBLE / paths.PREDICTIONS
    outcomes = {}
    for kind, found in ensemble.items():
        said = predictions.of_ensemble(path, kind)["test"]
        outcomes[kind] = outcomes_of(said)
        found |= _shown(outcomes[kind], said, study)
    return outcomes["declared"]


def _shown(outcomes: Outcomes, said: Predictions, study: Study) -> dict[str, Any]:
    return {
        "calibration": bins_of(outcomes, study.evaluation.calibration_bins),
        "confusion": confusion_of(outcomes, said.probabilities.shape[1]),
    }


def _reference(results: dict[str, Any], root: Path) -> dict[str, Any] | None:
    """Returns the comparison with the committed reference; None if there is none of this study and data."""
    path = root / reference.path_of(results["study"])
    if not path.exists():
        return None
    try:
        return reference.compare(results, reference.load(path))
    except DataError as error:
        print(f"no comparison with {path}: {error}")
        return None


def _stages() -> list[dict[str, Any]]:
    """Returns the time of each stage that `make study` has run so far, in seconds; empty without it."""
    path = Path(os.environ.get(TIMES, os.devnull))
    if not path.exists():  # a cleaner of temporary folders, in a study of weeks
        return []
    lines = map(json.loads, path.read_text().splitlines())
    return [{"stage": line["stage"], "seconds": round(line["seconds"], 1)} for line in lines]


def _versions(root: Path) -> dict[str, str]:
    """Returns the versions of Python and of the packages that the study is built on, and the digest of their lock."""
    found = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    lock = root / "requirements.lock"
    if lock.exists():
        found["requirements.lock"] = f"sha256 {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    return found


def _search(name: str, model: str, root: Path) -> dict[str, Any]:
    with (root / paths.trials(name)).open() as file:
        trials = list(csv.DictReader(file))
    curves = _numbers(root / paths.trial_curves(name))
    return {"name": name, "model": model, "trials": trials, "curves": curves}


def _numbers(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]


def _plan(rows: list[dict[str, Any]], path: Path) -> dict[str, Any] | None:
    """Returns what `make plan` predicted for these trainings beside what they took, if it was run.

    The file is not a dependency of the report: a study needs no plan.
    """
    if not path.exists():
        return None
    plan = json.loads(path.read_text())
    both = [
        {
            "name": row["name"],
            "predicted_s": plan["rows"][row["name"]]["predicted_s"],
            "real_s": row["scores"]["wall_seconds"],
        }
        for row in rows
        if plan["rows"].get(row["name"], {}).get("run_key") == row["run_key"]
    ]
    return {"where": plan["where"], "rows": both} if both else None


def _comparable(row: dict[str, Any], updates: int, root: Path) -> str:
    """Returns the digest of a recipe: of a row but for its network and what changes none of its results.

    How often a training reports changes them where its schedule looks at the reports.
    """
    left_out = {"network", "report_every_updates", "activation_checkpointing", "threads"}
    recipe = {name: value for name, value in row.items() if name not in left_out}
    if row["schedule"] == WITH_WARM_UP:
        recipe["schedule"] = WITHOUT_WARM_UP
    elif _reads_reports(load_schedule(root / row["schedule"])):
        recipe["report_every_updates"] = row["report_every_updates"]
    return canonical_sha256({**recipe, "updates": updates})[:16]


def _reads_reports(schedule: Schedule) -> bool:
    warmup = schedule.warmup
    return schedule.shape == "plateau" or (warmup is not None and warmup.kind == "until_error")


def _row(study: Study, name: str, root: Path) -> dict[str, Any]:
    row = study.models[name]
    facts = weights.look(root / paths.run(name))
    scores = json.loads((root / paths.scores(name) / paths.METRICS).read_text())
    history = parse_history_csv((root / paths.run(name) / HISTORY).read_text())
    layers = _numbers(root / paths.scores(name) / paths.RESPONSES)
    said = predictions.load(_predictions(name, root), "test")
    network = row.network
    official, depth = study.data.is_official, network.depth or scores["layers"]
    which = (getattr(network, "block", ""), depth, network.shortcut)
    on_imagenet = (
        official
        and isinstance(study.data, ImageNetData)
        and network.family == "imagenet"
        and row.crop_px == 224
    )
    scales = on_imagenet and study.evaluation.scales_px == paper.SCALES_PX
    without_seed = row.model_dump(mode="json", exclude={"seed"})
    return {
        "name": name,
        "group": group_of(row),
        "comparable": _comparable(without_seed, scores["updates"], root),
        "arch": network.title,
        "family": network.family,
        "kind": network.kind,
        "block": getattr(network, "block", ""),
        "depth": depth,
        "option": network.shortcut,
        "parameters": scores["parameters"],
        "multiply_adds": scores["multiply_adds"],
        "schedule": row.schedule,
        "is_the_papers_recipe": is_the_papers_recipe(row),
        "learning_rate_factor": row.learning_rate_factor,
        "seed": row.seed,
        "commit": facts.commit,
        "hardware": facts.hardware,
        "torch": facts.torch,
        "source": facts.source,
        "instance": facts.instance,
        "threads": facts.threads,
        "precision": row.precision,
        "workers": facts.workers,
        "global_batch_size": row.global_batch_size,
        "run_key": facts.run_key,
        "weights_sha256": facts.sha256,
        "paper_test_error_pct": (
            paper.cifar10_test_error_pct(depth, network.shortcut)
            if official and not isinstance(study.data, ImageNetData) and network.family == "cifar"
            else None
        ),
        "paper_ten_crops": paper.IMAGENET_TEN_CROPS_PCT.get(which) if on_imagenet else None,
        "paper_scales": paper.IMAGENET_SCALES_PCT.get(which) if scales else None,
        "scores": scores,
        **_shown(outcomes_of(said), said, study),
        "responses": [layer["std"] for layer in layers],
        "history": [vars(record) for record in history],
    }
