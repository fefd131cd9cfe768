"""A row's training without Ray and S3, in a module of its own: who is started for it imports nothing else."""

import os
import time
from pathlib import Path

import torch

from pipeline.training.golden import Folder, joined
from pipeline.training.run import run
from pipeline.training.training import Training


def work(rank: int, training: Training, arrays: Path, folder: Path) -> None:
    """Trains as one worker of a row, on one core, without Ray and S3."""
    workers, cores = training.row.worker_bounds[0], os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        with joined(folder / "meeting", rank, workers):
            run(
                training, arrays, Folder(folder), started=time.time(), device=torch.device("cpu"),
                rank=rank, workers=workers, on_report=lambda history: None,
            )  # fmt: skip
    finally:
        os.sched_setaffinity(0, cores)
