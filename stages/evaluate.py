"""Stage `evaluate`: a trained network -> predictions on val and test, and scores.

Photographs are tested in three views (section 3.4), by the cluster where there is one; val in the single view.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.local import s3
from pipeline import params
from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.evaluation import predictions
from pipeline.evaluation.parts import all_parts, outcomes_in, require_same_data
from pipeline.evaluation.scores import scores
from pipeline.evaluation.tables import SINGLE, Table
from pipeline.files import write_json
from pipeline.machine import cores
from pipeline.models import weights
from pipeline.models.complexity import complexity
from pipeline.models.weights import Trained
from pipeline.params import Row
from pipeline.storage.shards import ShardCache
from stages import stage

PREPARED = Path("data/arrays.safetensors")
Tables = dict[tuple[str, str], Table]
Sides = tuple[int, ...] | None
TIMINGS = ("updates", "train_images_per_s", "train_seconds", "wall_seconds")


def tables_of(name: str, row: Row, sides: Sides, data: Dataset, trained: Trained) -> Tables:
    """Returns what this machine or the cluster finds of a row, by split and view."""
    if sides:
        from stages import evaluate_there, where  # Ray: not needed for small sets

        if there := where.cluster():
            return evaluate_there.tables(there, name, row, trained.facts["sha256"], data)
    return all_parts(name, row, sides, data, trained)


def main(name: str) -> None:
    """Evaluates the row `name`."""
    study = params.load()
    row, recipe = params.row_of(study, name), study.evaluation
    sides, trained = recipe.scales_px, weights.load(Path("runs") / name)
    data = dataset.load(PREPARED, ShardCache(s3.connect(), cores()) if sides else None)
    require_same_data(trained, data)
    tables = tables_of(name, row, sides, data, trained)
    found: dict[str, Any] = {}
    for (split, view), table in tables.items():
        outcomes = outcomes_in(table, getattr(data, split).labels.numpy())
        prefix = split if view == SINGLE else f"{split}_{view}"
        found |= scores(outcomes, len(data.classes), prefix, recipe)
    shape = (trained.facts["channels"], *trained.facts["image_size_px"])
    found |= asdict(complexity(trained.model, shape))
    found |= {timing: trained.facts[timing] for timing in TIMINGS}
    predictions.save(Path("scores") / name / "predictions.npz", tables, data)
    write_json(Path("scores") / name / "metrics.json", found)
    low, high = found["test_error_pct_ci95"]
    print(f"{name}: test error {found['test_error_pct']:.2f} % (95 %: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    stage.main(main)
