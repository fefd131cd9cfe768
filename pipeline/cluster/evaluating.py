"""Where a training has ended, its network is evaluated at once: the stage `evaluate` then collects that.

So a cluster evaluates what it trained while `dvc repro` still collects other rows, and here no process has
to load torch for it. Photographs are evaluated later, by all nodes of a cluster (`pipeline.cluster.evaluator`).
"""

import sys
from pathlib import Path

import torch

from pipeline.data import dataset, prepared
from pipeline.evaluation.whole import evaluate
from pipeline.evaluations import EvaluationStore, key_of, what_is_evaluated
from pipeline.files import scratch
from pipeline.models import weights
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.training.result import write_result
from pipeline.training.training import Training


def evaluate_trained(
    training: Training, arrays: Path, storage: Storage, device: torch.device
) -> None:
    """Stores the evaluation of a finished training on images in memory, made on its device.

    The training has its result already, so whatever fails here costs it nothing: it is written to the log of who
    trained, and the stage `evaluate` evaluates.
    """
    name, row = training.name, training.row
    try:
        checkpoint = CheckpointStore.of(training, storage).finished()
        if checkpoint is None:  # damaged since: the stage `train` says so
            return
        with scratch("network") as folder:
            write_result(folder, training, prepared.look(arrays), checkpoint)
            trained = weights.load(folder)
        what = what_is_evaluated(row, training.data, None)
        store = EvaluationStore(storage, key_of(row, what, trained.facts.sha256))
        store.save(evaluate(name, row, None, dataset.load(arrays), trained, device))
    except Exception as error:  # noqa: BLE001 - torch has many kinds, and a full disk is one too
        print(f"warning: {name}: not evaluated yet: {error}", file=sys.stderr, flush=True)
