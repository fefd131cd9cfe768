"""One training from its parameters to its last update, on whatever device and worker it is given."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from pipeline.checkpoint import Checkpoint, CheckpointFacts, Record
from pipeline.data.dataset import Dataset, load
from pipeline.data.feeding import shown
from pipeline.data.feeding.augmentations import augmenter_of
from pipeline.data.feeding.batches import Batches, batches_of
from pipeline.data.feeding.extras import with_extras
from pipeline.data.feeding.shards import ShardFiles
from pipeline.models.networks import build
from pipeline.models.predict import keep_freed_memory
from pipeline.params import Row
from pipeline.training.batch_norm import average_statistics
from pipeline.training.capture import EAGER_UPDATES, CapturedStep, ComparedStep
from pipeline.training.hardware import hardware, make_repeatable
from pipeline.training.identity import source_of
from pipeline.training.loop import Step, Update, loss_and_wrong, train
from pipeline.training.replicas import Replicas
from pipeline.training.saving import Checkpoints, Saving
from pipeline.training.sgd import Sgd
from pipeline.training.state import TrainingState
from pipeline.training.training import Training
from pipeline.training.usage import Usage


def run(
    training: Training,
    arrays_path: Path,
    checkpoints: Checkpoints,
    *,
    started: float,
    device: torch.device,
    files: ShardFiles | None = None,
    rank: int = 0,
    workers: int = 1,
    on_report: Callable[[list[Record]], None],
) -> TrainingState:
    """Returns the finished state; resumes from the last checkpoint and commits one at each report.

    `arrays_path` is the prepared data set's file; `started` is when this attempt began, in seconds since
    1970. Every worker reads the same checkpoint; only rank 0 writes. `files` provides the shards of
    photographs. Raises DataError if the data set is not the training's, CheckpointError if the
    checkpoint is of another training, DivergedError, ReplicasError, and whatever a commit raises.
    """
    keep_freed_memory()
    make_repeatable(device)
    row, replicas = training.row, Replicas(rank, workers)
    torch.set_num_threads(row.threads)
    arrays = load(arrays_path, files)
    training.require_data(arrays.digest)
    state = _initial_state(training, arrays, device)
    wall_before, usage = 0.0, list[dict[str, float]]()
    if (found := checkpoints.latest()) is not None:
        training.check(found.facts)
        _resume(state, training, found, workers, device)
        wall_before = found.facts.wall_seconds
        usage += found.facts.usage
    del found  # its bytes, as many as the state's
    replicas.require_equal(state)  # and waits: a worker may still read what will be overwritten
    batches = _batches(row, arrays, device, rank, workers)
    val = arrays.val.share(rank, workers).to(device)

    def validate() -> tuple[float, float]:
        inputs = shown.inputs(val, arrays.mean, row.crop_px, device)
        share = loss_and_wrong(state.model, inputs, val.labels, row.precision)
        loss, wrong = (replicas.sum(share) / len(arrays.val)).tolist()
        return loss, 100 * wrong

    busy = Usage(device)
    with Saving(checkpoints) as saving:

        def report(state: TrainingState) -> None:
            if rank == 0:
                usage.append(busy.sample())
                wall_seconds = wall_before + time.time() - started
                facts = _facts(training, state, wall_seconds, workers, device, usage)
                saving.save(Checkpoint(state.tensors(), facts))
            on_report(state.history)

        train(
            training,
            state,
            _step(row, state, device, workers),
            batches,
            replicas,
            finish=lambda: _finish(row, state, batches, replicas),
            validate=validate,
            report=report,
        )
    return state


def _initial_state(training: Training, arrays: Dataset, device: torch.device) -> TrainingState:
    row = training.row
    model = build(
        row.network,
        arrays.channels,
        len(arrays.classes),
        row.seed,
        recompute=row.activation_checkpointing,
    ).to(device)
    optimizer = Sgd(
        model.parameters(),
        training.schedule.lr_at(0, []),
        row.optimizer.momentum,
        row.optimizer.weight_decay,
    )
    return TrainingState(model, optimizer)


def _step(row: Row, state: TrainingState, device: torch.device, workers: int) -> Update:
    """Returns what updates the state's weights; for a single worker on a GPU, from a graph."""
    step = Step(
        DistributedDataParallel(state.model) if workers > 1 else state.model,
        state.optimizer,
        row.precision,
        row.label_smoothing,
        row.gradient_accumulation_steps,
    )
    if device.type != "cuda" or workers > 1:
        return step
    return ComparedStep(CapturedStep(step), step, state.changed_by_updates, EAGER_UPDATES)


def _finish(row: Row, state: TrainingState, batches: Batches, replicas: Replicas) -> None:
    """Averages batch-norm statistics over the batches after the last update, if the row asks for it."""
    if row.averaged_batch_norm_batches:
        average_statistics(
            state.model,
            batches,
            state.update,
            row.averaged_batch_norm_batches,
            pieces=row.gradient_accumulation_steps,
            precision=row.precision,
            replicas=replicas,
        )


def _batches(row: Row, arrays: Dataset, device: torch.device, rank: int, workers: int) -> Batches:
    found = batches_of(
        arrays.train,
        augmenter_of(row.augmentation, arrays, device),
        global_batch_size=row.global_batch_size,
        seed=row.seed,
        device=device,
        rank=rank,
        workers=workers,
    )
    return with_extras(
        found,
        row.extras,
        seed=row.seed,
        global_batch_size=row.global_batch_size,
        rank=rank,
        workers=workers,
    )


def _facts(
    training: Training,
    state: TrainingState,
    wall_seconds: float,
    workers: int,
    device: torch.device,
    usage: Sequence[dict[str, float]],
) -> CheckpointFacts:
    return CheckpointFacts(
        name=training.name,
        key=training.key,
        trained=training.recipe,
        update=state.update,
        total_updates=training.schedule.total_updates,
        workers=workers,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        hardware=hardware(),
        time=time.time(),
        wall_seconds=wall_seconds,
        history=tuple(state.history),
        source=source_of(training.row, training.schedule),
        device=device.type,
        # what earlier code trained has none
        usage=(*[{}] * (len(state.history) - len(usage)), *usage),
    )


def _resume(
    state: TrainingState,
    training: Training,
    checkpoint: Checkpoint,
    workers: int,
    device: torch.device,
) -> None:
    facts = checkpoint.facts
    state.restore(checkpoint.tensors, facts.update, list(facts.history))
    print(f"{training.name}: resumed at update {state.update:,}", flush=True)
    then_and_now = {
        "workers": (facts.workers, workers),
        "threads": (facts.threads, torch.get_num_threads()),
        "torch": (facts.torch, torch.__version__),
        "device": (facts.device, device.type),
    }
    for what, (then, now) in then_and_now.items():
        if then != now:
            print(
                f"{training.name}: warning: {what} was {then} and is now {now}: the result may "
                "differ in its last bits from an uninterrupted training",
                file=sys.stderr,
                flush=True,
            )
