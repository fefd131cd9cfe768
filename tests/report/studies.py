"""A finished study on disk with made-up results, as large as wanted, for what reads them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.checkpoint import Record
from pipeline.evaluation.averaging import average
from pipeline.evaluation.outcomes import softmax
from pipeline.evaluation.predictions import TRAIN_WRONG
from pipeline.evaluation.scores import Predictions, gain_pct, outcomes_of, scores
from pipeline.formats import as_csv
from pipeline.params import Study, load
from pipeline.training.history import history_csv
from pipeline.training.result import HISTORY
from tests.checkpoints import model_facts
from tests.conftest import REPO

CLASSES = ["a$b$", "$\\frac{", "<b>&", '"', "plain", "日本", "x" * 60, "7", "8", "9"]


def study_of(seeds: int, depths: tuple[int, ...] = (20, 32, 44, 56)) -> Study:
    """Returns a study of plain and residual networks of some depths and seeds, after cifar10's."""
    base = load(REPO / "studies/cifar10.yaml").model_dump(mode="json")
    rows: dict[str, Any] = {}
    for depth in depths:
        for kind, name in (("plain", f"plain-{depth}"), ("basic", f"resnet-{depth}")):
            like = base["models"]["plain-20" if kind == "plain" else "resnet-20"]
            network = {**like["network"], "depth": depth}
            for seed in range(1, seeds + 1):
                row = name if seed == 1 else f"{name}-s{seed}"
                rows[row] = {**like, "network": network, "seed": seed}
    tune = {"search": {**next(iter(base["tune"].values())), "model": "resnet-20"}}
    claims = [{"better": f"resnet-{depths[-1]}", "than": f"plain-{depths[-1]}", "on": "test_error_pct", "by": 0.5},
              {"equal": "plain-20", "to": "plain-32", "on": "val_error_pct", "within": 2.0}]  # fmt: skip
    members = [f"resnet-{depth}" for depth in depths]
    return Study(**{**base, "models": rows, "tune": tune, "claims": claims,
                    "ensemble": {"members": members}})  # fmt: skip


def write_study(
    root: Path, study: Study, *, images: int = 1000, reports: int = 20, updates: int = 64_000
) -> None:
    """Writes the files that the stages before `report` leave, of that many test images and reports."""
    generator = np.random.default_rng(0)
    counts = {"train": 2 * images, "val": images, "test": images}
    labels = {split: generator.integers(0, len(CLASSES), count) for split, count in counts.items()}
    put = _Folder(root)
    for schedule in {row.schedule for row in study.models.values()}:
        put(Path(schedule), (REPO / schedule).read_text())
    put(paths.DIGEST, json.dumps({
        "digest": "d" * 64, "images": counts, "image_shape": [32, 32, 3], "classes": CLASSES, "recipe": "r"
    }))  # fmt: skip
    put(paths.ACCOUNT, json.dumps({
        "images": counts, "by_class": [], "classes": 10, "classes_with_few_training_images": [],
        "classes_with_few_training_images_count": 0, "left": {}, "modes": {}, "all_pixels_equal": 0,
        "duplicates": dict.fromkeys(
            ("within_train", "within_test", "val_in_train", "test_in_train", "test_in_val"), 0
        ),
    }))  # fmt: skip
    hard = generator.standard_normal(images)
    seen: dict[str, dict[str, Predictions]] = {}
    for name, row in study.models.items():
        network = row.network
        put(paths.run(name) / "model.json", json.dumps(asdict(
            model_facts(network, name=name, seed=row.seed, sha256=f"{hash((name, 1)):064x}"[-64:])
        )))  # fmt: skip
        end = 8 + (network.depth or 0) / 8 * (1 if network.kind == "plain" else -0.1)
        lines = [
            Record(
                updates * (n + 1) // reports, n + 1.0, 0.1, 1.0, max(end, 90 - 180 * (n + 1) / reports),
                1.0, max(end, 90 - 178 * (n + 1) / reports), "float32", 1, float(n), 1000.0,
            )
            for n in range(reports)
        ]  # fmt: skip
        put(paths.run(name) / HISTORY, history_csv(lines))
        said, columns = {}, {TRAIN_WRONG: generator.random(counts["train"]) < end / 100}
        found: dict[str, Any] = {"updates": updates, "train_images_per_s": 1000.0, "train_seconds": 60.0,
                                 "wall_seconds": 61.0, "parameters": 270_000 * (network.depth or 1),
                                 "multiply_adds": 10**6 * (network.depth or 1), "layers": network.depth}  # fmt: skip
        for split in ("train", "val", "test"):
            logits = generator.normal(size=(counts[split], len(CLASSES))).astype(np.float32)
            margin = 3.5 - (end - 8) / 8 - (hard if split == "test" else 0)
            logits[np.arange(counts[split]), labels[split]] += margin
            ids = np.arange(counts[split])
            said[split] = Predictions(softmax(logits), labels[split], ids)
            found |= scores(outcomes_of(said[split]), len(CLASSES), split, study.evaluation)
            if split != "train":
                columns |= {
                    f"{split}_logits": logits,
                    f"{split}_labels": labels[split],
                    f"{split}_ids": ids,
                }
        seen[name] = said
        put.arrays(paths.scores(name) / paths.PREDICTIONS, columns)
        put(paths.scores(name) / paths.METRICS, json.dumps(found))
        layers = [{"layer": n + 1, "std": 1 / (n + 1)} for n in range((network.depth or 2) - 1)]
        put(paths.scores(name) / paths.RESPONSES, as_csv(layers, "layer", "std"))
    _ensembles(put, study, seen)
    for name in study.tune:
        trials = [{"search": "s", "trial": f"t{n}", "number": n, "status": "complete" if n < 2 else "stopped",
                   "updates": updates, "val_error_pct": 9 + n, "val_loss": 1.0, "shape": "step",
                   "base_lr": 0.1 / (n + 1), "warmup_updates": 0, "drops": "100 200" if n else ""}
                  for n in range(4)]  # fmt: skip
        put(paths.trials(name), as_csv(trials))
        put(paths.trial_curves(name), as_csv([
            {"number": n, "update": u, "lr": 0.1, "train_error_pct": 50.0, "val_error_pct": 50.0 - n}
            for n in range(4) for u in (10, 20)
        ]))  # fmt: skip


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, path: Path, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def arrays(self, path: Path, columns: dict[str, Any]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.root / path, **columns)


def _ensembles(put: _Folder, study: Study, seen: dict[str, dict[str, Predictions]]) -> None:
    members = list(study.ensemble.members)
    found: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for kind in ("declared", "greedy"):
        found[kind] = {"members": members, "best_member": members[0]}
        for split in ("val", "test"):
            together = average([seen[name][split] for name in members])
            gain, interval = gain_pct(together, seen[members[0]][split])
            found[kind] |= scores(outcomes_of(together), len(CLASSES), split, study.evaluation)
            found[kind] |= {f"{split}_gain_pct": gain, f"{split}_gain_pct_ci95": interval}
            columns[f"{kind}_{split}_probabilities"] = together.probabilities.astype(np.float32)
            columns |= {f"{split}_labels": together.labels, f"{split}_ids": together.ids}
    put.arrays(paths.ENSEMBLE / paths.PREDICTIONS, columns)
    put(paths.ENSEMBLE / paths.METRICS, json.dumps(found))
