"""Trains a row with Ray Train.

One worker uses Ray Train's local mode, in this process or in an actor on a cluster's node (1 s to the
first step instead of 15); several are a worker group of processes. All run the same function. A training
resumes from its own checkpoints on S3, not from Ray's (docs/adr/0001), so a run that failed is simply
started again.
"""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device

from pipeline import evaluations, machine
from pipeline.checkpoint import Record
from pipeline.cluster import private, session
from pipeline.cluster.evaluating import evaluate_trained
from pipeline.cluster.retry import PATIENCE_S, patience_s, until_done, update_of
from pipeline.cluster.side_by_side import WORKER_BYTES
from pipeline.data import prepared
from pipeline.errors import ResourceError
from pipeline.files import scratch
from pipeline.git import commit
from pipeline.params import Row, validate
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.datasets import DataSets
from pipeline.storage.layout import TRAININGS
from pipeline.storage.objects import Storage
from pipeline.storage.shard_store import ShardCache
from pipeline.training.hardware import require
from pipeline.training.run import run
from pipeline.training.schedule import Schedule
from pipeline.training.training import Training

ELASTIC_LOOK_EVERY_S = 30.0  # an elastic run takes in new nodes at most this often


def train(training: Training, arrays: Path, started: float) -> None:
    """Runs a row's training in this process to its last update; its result is its last checkpoint on S3.

    Several workers are separate processes. Raises ResourceError before anything starts if the machine
    lacks memory or the row's precision, and what the training raised (or TrainingError) if it failed for
    the last time.
    """
    config = config_here(training, arrays, started)
    if training.row.worker_bounds[1] == 1:
        train_one(config, use_gpu=torch.cuda.is_available())
        return
    with session.embedded():
        train_several_here(config)


def config_here(training: Training, arrays: Path, started: float) -> dict[str, Any]:
    """Returns what a worker on this machine needs to know; raises ResourceError as `train` does."""
    workers, free = training.row.worker_bounds[0], machine.free_memory_bytes()
    if workers > 1 and workers * WORKER_BYTES > free:
        raise ResourceError(
            f"params.yaml: models.{training.name}.workers is {workers}, but this machine has "
            f"{free / 1e9:.1f} GB of free memory, and each worker takes at least "
            f"{WORKER_BYTES / 1e9:.1f} GB: lower it, or train on a larger machine"
        )
    require(training.row.precision, f"models.{training.name}.precision")
    return {
        "training": training, "model": training.name, "arrays": arrays.resolve(),
        "started": started, "patience_s": patience_s(),
        "commit": commit(),  # workers may have no Git
        "decoders": machine.cores(),
    }  # fmt: skip


def train_one(config: dict[str, Any], *, use_gpu: bool) -> None:
    """Trains with one worker, in this process."""
    _fit(config, ScalingConfig(num_workers=0, use_gpu=use_gpu))


def train_several_here(config: dict[str, Any]) -> None:
    """Trains with several workers of the embedded Ray, even if there are fewer cores than workers."""
    low, high = config["training"].row.worker_bounds
    cores = machine.cores()
    workers = max(low, min(high, cores))
    group = ScalingConfig(
        num_workers=workers,
        use_gpu=torch.cuda.device_count() >= workers,
        resources_per_worker={"CPU": min(config["training"].row.threads, cores / workers)},
    )
    fit_group({**config, "decoders": max(1, cores // workers)}, group)


def train_alone(spec: dict[str, Any], started: float) -> None:
    """Trains the row of a job's document in this process on a cluster, as its only worker."""
    train_one(_config_there(spec, started), use_gpu=spec["share"]["GPU"] > 0)


def train_group(spec: dict[str, Any]) -> None:
    """Trains the row of a job's document with several workers of the cluster it has joined."""
    config, share = _config_there(spec, time.time()), spec["share"]
    low, high = config["training"].row.worker_bounds
    group = ScalingConfig(
        num_workers=high if low == high else (low, high),
        use_gpu=share["GPU"] > 0,
        resources_per_worker=share,
        placement_strategy="SPREAD",
        elastic_resize_monitor_interval_s=ELASTIC_LOOK_EVERY_S,
    )
    fit_group(config, group)


def _config_there(spec: dict[str, Any], started: float) -> dict[str, Any]:
    """Returns what a worker on a cluster needs to know."""
    training = Training(
        spec["name"], validate(Row, spec["row"], "job"), validate(Schedule, spec["schedule"], "job"),
        spec["data"], spec["key"], spec["overridden"], spec["instance"],
    )  # fmt: skip
    return {
        "training": training, "model": training.name, "arrays": None, "started": started,
        "patience_s": PATIENCE_S, "commit": spec["commit"], "decoders": spec["share"]["CPU"],
    }  # fmt: skip


def fit_group(config: dict[str, Any], group: ScalingConfig) -> None:
    """Trains a row, or a trial, with a group of workers; raises what `until_done` raises."""
    training: Training = config["training"]
    until_done(
        training.name,
        lambda: update_of(CheckpointStore.of(training, Storage(patience_s=config["patience_s"]))),
        lambda: _fit(config, group),
        (TrainingFailedError, RayActorError),
    )


def _fit(config: dict[str, Any], scaling: ScalingConfig) -> None:
    with scratch("train") as folder:
        TorchTrainer(
            _worker,
            train_loop_config=config,
            torch_config=private.own_interface(),
            scaling_config=scaling,
            run_config=RunConfig(
                name=f"{config['training'].key}-{uuid.uuid4().hex[:8]}",  # new: Ray must not resume
                storage_path=str(folder),  # nothing of value is kept there
                failure_config=FailureConfig(max_failures=0),
            ),
        ).fit()


def _worker(config: dict[str, Any]) -> None:
    """Runs on every worker: joins the others and trains."""
    context = ray.train.get_context()
    in_this_process(
        config,
        get_device(),
        # Ray Train gets no report: it would wait for the controller's next poll, half a second
        lambda history: None,
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
    )


def in_this_process(
    config: dict[str, Any],
    device: torch.device,
    on_report: Callable[[list[Record]], None],
    **which: int,
) -> None:
    """Trains as one worker, `which` of several; data come from S3 if `config` names no file.

    The first worker of a row on small images then evaluates its network.
    """
    training: Training = config["training"]
    is_row = training.kind == TRAININGS
    if is_row:
        training.require_source()
        evaluations.source_of(training.row)  # what will evaluate it, even if it is edited
    storage = Storage(patience_s=config["patience_s"])
    arrays: Path | None = config["arrays"]
    if arrays is None:
        require(training.row.precision, f"models.{config['model']}.precision")  # of this node
        arrays = DataSets(storage).cached(training.data)
    is_sharded = prepared.look(arrays).is_sharded
    run(
        training,
        arrays,
        CheckpointStore.of(training, storage, commit=config["commit"]),
        started=config["started"],
        device=device,
        files=ShardCache(storage, config["decoders"]),
        on_report=on_report,
        **which,
    )
    if is_row and not which.get("rank") and not is_sharded:
        evaluate_trained(training, arrays, storage, device)
