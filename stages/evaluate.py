"""Stage `evaluate`: a trained network -> scores on train, val and test; predictions of val and test; responses.

Who trained a network has evaluated it too, so there is only something to collect. Photographs are evaluated
afterwards, in three views (section 3.4), on the cluster if there is one; val in one view.
"""

import sys
from typing import Any

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.errors import StorageError
from pipeline.evaluation import predictions
from pipeline.evaluation.outcomes import outcomes_in
from pipeline.evaluation.scores import scores
from pipeline.evaluation.tables import SINGLE
from pipeline.execution.evaluating import evaluation_of
from pipeline.files import write, write_json
from pipeline.formats import as_csv
from pipeline.models import weights
from pipeline.storage.objects import Storage

TIMINGS = ("updates", "train_images_per_s", "train_seconds", "wall_seconds")


def _storage(*, needed: bool) -> Storage | None:
    try:
        return s3.connect()
    except StorageError as error:
        if needed:
            raise
        print(f"warning: {error}: evaluating here", file=sys.stderr)
        return None


def main(name: str) -> None:
    """Evaluates the row `name`."""
    study, data = params.load(), prepared.look(paths.ARRAYS)
    params.row_of(study, name)
    evaluation = evaluation_of(study, name, data, _storage(needed=data.is_sharded))
    facts, labels = weights.look(paths.run(name)), prepared.labels(paths.ARRAYS)
    found: dict[str, Any] = {}
    for (split, view), table in evaluation.tables.items():
        outcomes = outcomes_in(table, labels[split].labels)
        prefix = split if view == SINGLE else f"{split}_{view}"
        found |= scores(outcomes, len(data.classes), prefix, study.evaluation)
    found |= evaluation.costs
    found |= {timing: getattr(facts, timing) for timing in TIMINGS}
    predictions.save(paths.scores(name) / paths.PREDICTIONS, evaluation.tables, labels)
    layers = enumerate(evaluation.responses, start=1)
    lines = [{"layer": layer, "std": std} for layer, std in layers]
    write(paths.scores(name) / paths.RESPONSES, as_csv(lines, "layer", "std"))
    write_json(paths.scores(name) / paths.METRICS, found)
    low, high = found["test_error_pct_ci95"]
    print(f"{name}: test error {found['test_error_pct']:.2f} % (95 %: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    command.stage(main, lambda name: params.determining(params.load(), name))
