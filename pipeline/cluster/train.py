"""Trains a row with Ray Train.

On this machine one worker is Ray Train's local mode (the worker is this process: 1 s to the first
step instead of 15), several are a worker group of processes. Both run the same function; what
makes a training resumable is its own checkpoints on S3, not Ray's (docs/adr/0001).
"""

import tempfile
import uuid
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device

from pipeline.cluster import session
from pipeline.errors import ResourceError, StudyError, TrainingError
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.s3 import Storage
from pipeline.tracking.publish import commit
from pipeline.training.hardware import require
from pipeline.training.run import TrainJob, run

MAX_FAILURES = 3


def train(job: TrainJob) -> None:
    """Brings a row's training to its end; its result is then its last checkpoint on S3.

    Raises ResourceError before anything starts where the machine has too few cores or lacks the
    row's precision, and what the training raised (or TrainingError) when it failed for the last time.
    """
    workers, cores = job.row.workers, session.cores()
    if workers > cores:
        raise ResourceError(
            f"params.yaml: models.{job.name}.workers is {workers}, but this machine has {cores} "
            "cores: lower it, or train on a larger machine"
        )
    session.refuse_cluster()
    require(job.row.precision, f"models.{job.name}.precision")
    with tempfile.TemporaryDirectory(prefix="ray-train-") as scratch:
        if workers == 1:
            torch.set_num_threads(cores)
            alone = ScalingConfig(num_workers=0, use_gpu=torch.cuda.is_available())
            _trainer(job, alone, scratch).fit()
            return
        group = ScalingConfig(
            num_workers=workers,
            use_gpu=torch.cuda.device_count() >= workers,
            resources_per_worker={"CPU": cores // workers},
        )
        with session.embedded():
            try:
                _trainer(job, group, scratch).fit()
            except TrainingFailedError as error:
                raise _cause(job, error) from error


def _trainer(job: TrainJob, scaling: ScalingConfig, scratch: str) -> TorchTrainer:
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "commit": commit()},  # workers may have no Git
        scaling_config=scaling,
        run_config=RunConfig(
            name=f"{job.key}-{uuid.uuid4().hex[:8]}",  # Ray must never resume by itself
            storage_path=scratch,  # nothing of worth is kept there
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _cause(job: TrainJob, error: TrainingFailedError) -> StudyError:
    """Returns the error that a worker raised, if it is the user's to mend."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, StudyError):
            return cause
    what = failures[0] if failures else error
    return TrainingError(f"{job.name}: failed {MAX_FAILURES + 1} times; the last time: {what}")


def _worker(config: dict[str, Any]) -> None:
    """The same on every worker: joins the others and trains."""
    job: TrainJob = config["job"]
    context = ray.train.get_context()
    run(
        job,
        CheckpointStore(Storage(), job.key, {"commit": config["commit"]}),
        device=get_device(),
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
        on_report=lambda history: ray.train.report({"update": history[-1].update}),
    )
