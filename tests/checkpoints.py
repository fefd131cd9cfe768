"""Made-up checkpoints, for what stores and shows them."""

from typing import Any

from pipeline.checkpoint import Checkpoint, CheckpointFacts, Record
from pipeline.models.weights import ModelFacts
from pipeline.params import Network


def record(update: int) -> Record:
    """Returns a line of a history."""
    return Record(
        update, epoch=1.0, lr=0.1, train_loss=1.0, train_error_pct=1.0, val_loss=1 / max(update, 1),
        val_error_pct=2.0, precision="float32", threads=1, seconds=update / 10, train_images_per_s=3.0,
    )  # fmt: skip


def facts(update: int, attempt: int = 0) -> CheckpointFacts:
    """Returns what a checkpoint of `update`, of 9, says; its history has a line every four updates."""
    history = tuple(record(done) for done in range(4, update + 1, 4)) or (record(0),)
    return CheckpointFacts(
        name="net", key="k" * 24, trained={"data": "digest", "row": {"augmentation": {}}}, update=update, total_updates=9, workers=1, threads=1,
        torch="2", hardware="this", time=0.0, wall_seconds=1.0, history=history, attempt=attempt,
    )  # fmt: skip


def checkpoint(tensors: bytes, update: int, attempt: int = 0) -> Checkpoint:
    """Returns a checkpoint of `update`, of 9."""
    return Checkpoint(tensors, facts(update, attempt))


def model_facts(network: Network, **others: Any) -> ModelFacts:
    """Returns what model.json says of a network, `others` as given."""
    said = {
        "name": "net", "arch": network.title, "network": network.model_dump(), "channels": 3,
        "image_size_px": (32, 32), "classes": ("0", "1"), "precision": "float32", "seed": 1,
        "run_key": "k" * 24, "run_key_overridden": False, "instance": 1, "commit": "c" * 40,
        "data_digest": "d" * 64, "updates": 9, "history_digest": "h" * 64, "threads": 1, "workers": 1,
        "torch": "2", "hardware": "this", "source": None, "wall_seconds": 2.0, "train_seconds": 1.0,
        "train_images_per_s": 3.0,
    }  # fmt: skip
    return ModelFacts(**{**said, **others})
