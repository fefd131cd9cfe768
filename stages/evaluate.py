"""Stage `evaluate`: a trained network -> scores on train, val and test; predictions of val and test; responses.

Photographs are tested in three views (section 3.4), on the cluster if there is one; val in one view.
"""

from dataclasses import asdict
from typing import Any

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import dataset
from pipeline.data.feeding import shown
from pipeline.evaluation import predictions
from pipeline.evaluation.parts import outcomes_in, require_same_data
from pipeline.evaluation.responses import responses
from pipeline.evaluation.scores import scores
from pipeline.evaluation.tables import SINGLE
from pipeline.execution.evaluating import tables_of
from pipeline.files import write, write_json
from pipeline.formats import as_csv
from pipeline.machine import cores
from pipeline.models import weights
from pipeline.models.complexity import complexity
from pipeline.models.predict import device
from pipeline.storage.shard_store import ShardCache

TIMINGS = ("updates", "train_images_per_s", "train_seconds", "wall_seconds")


def main(name: str) -> None:
    """Evaluates the row `name`."""
    study = params.load()
    params.row_of(study, name)
    recipe, trained = study.evaluation, weights.load(paths.run(name))
    storage = s3.connect() if recipe.scales_px else None  # it has the photographs
    data = dataset.load(paths.ARRAYS, ShardCache(storage, cores()) if storage else None)
    require_same_data(trained, data)
    tables = tables_of(study, name, trained, data, storage)
    found: dict[str, Any] = {}
    for (split, view), table in tables.items():
        outcomes = outcomes_in(table, getattr(data, split).labels.numpy())
        prefix = split if view == SINGLE else f"{split}_{view}"
        found |= scores(outcomes, len(data.classes), prefix, recipe)
    shape = (trained.facts.channels, *trained.facts.image_size_px)
    found |= asdict(complexity(trained.model, shape))
    found |= {timing: getattr(trained.facts, timing) for timing in TIMINGS}
    predictions.save(paths.scores(name) / paths.PREDICTIONS, tables, data)
    inputs = () if storage else shown.inputs(data.val, trained.mean, None, device())
    layers = enumerate(responses(trained.model, inputs), start=1)
    lines = [{"layer": layer, "std": std} for layer, std in layers]
    write(paths.scores(name) / paths.RESPONSES, as_csv(lines, "layer", "std"))
    write_json(paths.scores(name) / paths.METRICS, found)
    low, high = found["test_error_pct_ci95"]
    print(f"{name}: test error {found['test_error_pct']:.2f} % (95 %: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    command.main(main)
