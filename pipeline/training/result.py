"""The result of a finished training as the files of `runs/<row>/`."""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_tensors

from pipeline.data.prepared import Prepared
from pipeline.files import write
from pipeline.models import weights
from pipeline.models.archs import arch_of
from pipeline.training.history import Record, history_csv, history_digest, records_of
from pipeline.training.job import TrainJob

HISTORY = "history.csv"


def is_finished(facts: dict[str, Any] | None) -> bool:
    """Tells whether a checkpoint is of the last update."""
    return facts is not None and facts["update"] == facts["total_updates"]


def is_collected(folder: Path, job: TrainJob) -> bool:
    """Tells whether a folder holds the result of a training: of its key, and of no earlier instance."""
    try:
        facts = json.loads((folder / "model.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    there = (folder / "model.safetensors").exists()
    return there and facts.get("run_key") == job.key and facts.get("instance", 1) >= job.instance


def weights_in(tensors: bytes) -> weights.Weights:
    """Returns the network's part of a checkpoint."""
    return {
        name.removeprefix("model."): value
        for name, value in load_tensors(tensors).items()
        if name.startswith("model.")
    }


def write_result(
    folder: Path,
    job: TrainJob,
    data: Prepared,
    tensors: bytes,
    facts: dict[str, Any],
    *,
    overridden: bool,
    commit: str,
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
            "name": job.name,
            "arch": arch_of(job.row.network).name,
            "network": job.row.network.model_dump(),
            "channels": data.channels,
            "image_size_px": list(data.input_size(job.row.crop_px)),
            "classes": list(data.classes),
            "precision": job.row.precision,
            "seed": job.row.seed,
            "run_key": job.key,
            "run_key_overridden": overridden,
            "instance": job.instance,
            "commit": commit,
            "data_digest": data.digest,
            "updates": facts["update"],
            "history_digest": history_digest(history),
            "threads": facts["threads"],
            "workers": facts["workers"],
            "torch": facts["torch"],
            "hardware": facts["hardware"],
            "source": facts.get("source"),
            "wall_seconds": wall_seconds,
            "train_seconds": seconds,
            "train_images_per_s": job.row.global_batch_size
            * facts["update"]
            / _update_seconds(history, job),
        },
    )
    write(folder / HISTORY, history_csv(history))
    return history


def _update_seconds(history: list[Record], job: TrainJob) -> float:
    """Returns the seconds spent in updates alone, from each interval's images a second."""
    total, before = 0.0, 0
    for record in history:
        total += (record.update - before) * job.row.global_batch_size / record.train_images_per_s
        before = record.update
    return total
