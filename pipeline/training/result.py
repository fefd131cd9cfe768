"""The result of a finished training as the files of `runs/<row>/`."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import load as load_tensors

from pipeline import paths
from pipeline.checkpoint import Checkpoint, Record
from pipeline.data.prepared import Prepared
from pipeline.errors import CheckpointError
from pipeline.files import write
from pipeline.models import weights
from pipeline.models.weights import ModelFacts
from pipeline.training.history import history_csv, history_digest
from pipeline.training.training import Training

HISTORY = "history.csv"


def is_collected(folder: Path, training: Training) -> bool:
    """Tells whether a folder holds the result of a training: of its key, and of no earlier instance."""
    try:
        facts = weights.look(folder)
    except CheckpointError:
        return False
    there = (folder / paths.WEIGHTS).exists()
    return there and facts.run_key == training.key and facts.instance >= training.instance


def weights_in(tensors: bytes) -> weights.Weights:
    """Returns the network's part of a checkpoint's tensors."""
    return {
        name.removeprefix("model."): value
        for name, value in load_tensors(tensors).items()
        if name.startswith("model.")
    }


def write_result(
    folder: Path, training: Training, data: Prepared, checkpoint: Checkpoint
) -> Sequence[Record]:
    """Writes model.safetensors, model.json and history.csv of the last checkpoint; returns its history.

    `train_seconds` is the time in the training loop, validation included, over all its attempts.
    """
    facts = checkpoint.facts
    history, model = facts.history, weights_in(checkpoint.tensors)
    seconds = history[-1].seconds
    weights.save(
        folder,
        model,
        data.mean,
        ModelFacts(
            name=training.name,
            arch=training.row.network.title,
            network=training.row.network.model_dump(),
            channels=data.channels,
            image_size_px=data.input_size(training.row.crop_px),
            classes=list(data.classes),
            precision=training.row.precision,
            seed=training.row.seed,
            run_key=training.key,
            run_key_overridden=training.overridden,
            instance=training.instance,
            commit=facts.commit,
            data_digest=training.data,
            updates=facts.update,
            history_digest=history_digest(history),
            threads=facts.threads,
            workers=facts.workers,
            torch=facts.torch,
            hardware=facts.hardware,
            source=facts.source,
            wall_seconds=facts.wall_seconds,
            train_seconds=seconds,
            train_images_per_s=training.row.global_batch_size
            * facts.update
            / _update_seconds(history, training),
        ),
    )
    write(folder / HISTORY, history_csv(history))
    return history


def _update_seconds(history: Sequence[Record], training: Training) -> float:
    """Returns the seconds spent in updates alone, computed from each interval's images per second."""
    total, before = 0.0, 0
    for record in history:
        total += (
            (record.update - before) * training.row.global_batch_size / record.train_images_per_s
        )
        before = record.update
    return total
