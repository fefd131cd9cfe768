"""How fast this machine trains a row: a short training with the real loop, discarded afterwards."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pipeline.data import prepared
from pipeline.data.feeding.shards import ShardFiles
from pipeline.params import Row, validate
from pipeline.training.run import run
from pipeline.training.saving import Checkpoints
from pipeline.training.schedule import Schedule
from pipeline.training.training import Training

SECONDS = 4.0
MOST_UPDATES = 400
INTERVALS = 5


@dataclass(frozen=True)
class Speed:
    """Seconds of one update and of one report (validation and checkpoint) on one worker."""

    update_s: float
    report_s: float


def what_costs(row: Row) -> str:
    """Returns everything in a row that its speed depends on, as text."""
    left_out = {"seed", "schedule", "learning_rate_factor", "report_every_updates", "optimizer"}
    return row.model_dump_json(exclude=left_out)


def worker_batch(row: Row) -> int:
    """Returns how many images of a batch one worker takes at the largest allowed number of workers."""
    return row.global_batch_size // row.worker_bounds[1]


def measure(
    row: Row, arrays: Path, files: ShardFiles, store: Checkpoints, device: torch.device
) -> Speed:
    """Returns the speed of one worker's share of a row, measured in a few seconds of training.

    Two first updates decide how many to measure; communication between workers is not included.
    """
    share = row.model_copy(  # a worker's
        update={
            "global_batch_size": worker_batch(row),
            "workers": 1,
            "averaged_batch_norm_batches": 0,
        }
    )
    rough = _train(share, 2, arrays, files, store, device)
    updates = min(round(SECONDS / rough.update_s), MOST_UPDATES)
    return _train(share, updates, arrays, files, store, device) if updates > INTERVALS else rough


def _train(
    row: Row,
    updates: int,
    arrays: Path,
    files: ShardFiles,
    store: Checkpoints,
    device: torch.device,
) -> Speed:
    """Trains for several intervals; returns the medians over all but the first."""
    document: dict[str, Any] = {
        "shape": "cosine", "base_lr": 1e-3, "total_updates": updates, "warmup": None,
    }  # fmt: skip
    every = max(updates // INTERVALS, 1)
    measured = row.model_copy(update={"report_every_updates": every})
    schedule: Schedule = validate(Schedule, document, "speed")
    data = prepared.look(arrays).digest
    times: list[float] = []
    state = run(
        Training("speed", measured, schedule, data, "speed"),
        arrays,
        store,
        started=time.time(),
        device=device,
        files=files,
        on_report=lambda history: times.append(time.perf_counter()),
    )
    lines = state.history
    update_s = [row.global_batch_size / line.train_images_per_s for line in lines]
    report_s = [
        times[i] - times[i - 1] - (lines[i].update - lines[i - 1].update) * update_s[i]
        for i in range(1, len(lines))
    ]
    return Speed(median(update_s[1:]), max(median(report_s), 0.0))
