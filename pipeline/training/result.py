"""The result of a finished training as the files of `runs/<row>/`."""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_tensors

from pipeline.data.prepared import Prepared
from pipeline.files import write
from pipeline.models import weights
from pipeline.training.history import Record, history_csv, history_digest, records_of
from pipeline.training.training import Training

HISTORY = "history.csv"


def is_finished(facts: dict[str, Any] | None) -> bool:
    """Tells whether a checkpoint is of the last update."""
    return facts is not None and facts["update"] == facts["total_updates"]


def is_collected(folder: Path, training: Training) -> bool:
    """Tells whether a folder holds the result of a training: of its key, and of no earlier instance."""
    try:
        facts = json.loads((folder / "model.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    there = (folder / "model.safetensors").exists()
    return (
        there
        and facts.get("run_key") == training.key
        and facts.get("instance", 1) >= training.instance
    )


def weights_in(tensors: bytes) -> weights.Weights:
    """Returns the network's part of a checkpoint."""
    return {
        name.removeprefix("model."): value
        for name, value in load_tensors(tensors).items()
        if name.startswith("model.")
    }


def write_result(
    folder: Path,
    training: Training,
    data: Prepared,
    tensors: bytes,
    facts: dict[str, Any],
    *,
    wall_seconds: float,
) -> list[Record]:
    """Writes model.safetensors, model.json and history.csv of the last checkpoint; returns history.

    `train_seconds` is the time in the training loop, validation included, over all its attempts.
    """
    history = records_of(facts)
    model = weights_in(tensors)
    seconds = history[-1].seconds
    weights.save(
        folder,
        model,
        data.mean,
        {
            "name": training.name,
            "arch": training.row.network.title,
            "network": training.row.network.model_dump(),
            "channels": data.channels,
            "image_size_px": list(data.input_size(training.row.crop_px)),
            "classes": list(data.classes),
            "precision": training.row.precision,
            "seed": training.row.seed,
            "run_key": training.key,
            "run_key_overridden": training.overridden,
            "instance": training.instance,
            "commit": facts.get("commit", "unknown"),
            "data_digest": training.data,
            "updates": facts["update"],
            "history_digest": history_digest(history),
            "threads": facts["threads"],
            "workers": facts["workers"],
            "torch": facts["torch"],
            "hardware": facts["hardware"],
            "source": facts.get("source"),
            "wall_seconds": wall_seconds,
            "train_seconds": seconds,
            "train_images_per_s": training.row.global_batch_size
            * facts["update"]
            / _update_seconds(history, training),
        },
    )
    write(folder / HISTORY, history_csv(history))
    return history


def _update_seconds(history: list[Record], training: Training) -> float:
    """Returns the seconds spent in updates alone, from each interval's images a second."""
    total, before = 0.0, 0
    for record in history:
        total += (
            (record.update - before) * training.row.global_batch_size / record.train_images_per_s
        )
        before = record.update
    return total
