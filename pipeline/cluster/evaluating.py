"""Where a training has ended, its network is evaluated at once: the stage `evaluate` then collects that.

So a cluster evaluates what it trained while `dvc repro` still collects other rows, and here no process has
to load torch for it. Photographs are evaluated later, by all nodes of a cluster (`pipeline.cluster.evaluator`).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.data import prepared
from pipeline.errors import StudyError
from pipeline.evaluation.tables import Evaluation
from pipeline.files import scratch
from pipeline.params import Row, canonical_sha256
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.evaluations import EvaluationStore
from pipeline.storage.objects import Storage
from pipeline.training.identity import KEY_LENGTH, computing
from pipeline.training.result import write_result
from pipeline.training.training import Training


def what_is_evaluated(row: Row, data: str, scales_px: Sequence[int] | None) -> dict[str, Any]:
    """Returns all that determines an evaluation but the network and the source; `data` by its digest."""
    return {
        "data": data,
        "scales_px": list(scales_px or ()),
        "crop_px": row.crop_px,
        "precision": row.precision,
        "threads": row.threads,
    }


def key_of(row: Row, what: dict[str, Any], network: str) -> str:
    """Returns the key of an evaluation of the network whose weights have the sha256 `network`."""
    family = f"pipeline.models.families.{row.network.family}"
    source = computing("pipeline.evaluation.whole", family)
    return canonical_sha256({**what, "network": network, "source": source})[:KEY_LENGTH]


def save(store: EvaluationStore, found: Evaluation) -> None:
    """Stores an evaluation."""
    store.save(found.tables, {"responses": found.responses, "costs": found.costs})


def stored(store: EvaluationStore) -> Evaluation | None:
    """Returns what `save` stored, or None; raises StorageError if it is damaged."""
    if (found := store.load()) is None:
        return None
    tables, facts = found
    return Evaluation(tables, **facts)


def evaluate_trained(training: Training, arrays: Path, storage: Storage) -> None:
    """Stores the evaluation of a finished training, if its images are in memory, not photographs.

    The training has its result already: whatever fails here is told, and the stage `evaluate` does it.
    """
    data = prepared.look(arrays)
    if data.is_sharded:
        return
    # here: a job of photographs, and a stage that only collects, need neither
    from pipeline.data import dataset
    from pipeline.evaluation.whole import evaluate
    from pipeline.models import weights

    name, row = training.name, training.row
    try:
        checkpoint = CheckpointStore.of(training, storage).finished()
        if checkpoint is None:  # damaged since: the stage `train` says so
            return
        with scratch("network") as folder:
            write_result(folder, training, data, checkpoint, wall_seconds=0.0)
            trained = weights.load(folder)
        what = what_is_evaluated(row, training.data, None)
        store = EvaluationStore(storage, key_of(row, what, trained.facts.sha256))
        save(store, evaluate(name, row, None, dataset.load(arrays), trained))
    except (
        StudyError,
        RuntimeError,
    ) as error:  # torch's, such as too little memory, are the latter
        print(f"warning: {name}: not evaluated yet: {error}", file=sys.stderr, flush=True)
