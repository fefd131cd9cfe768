"""Trains rows side by side on this machine: one embedded Ray, warm workers, the longest row first.

As many train at once as cores, free memory and GPUs allow. A worker process trains one row after
another; one that dies is replaced, and its row goes on from its last checkpoint.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline import machine
from pipeline.cluster import session
from pipeline.cluster.retry import MAX_FAILURES, patience_s, reason, update_of
from pipeline.errors import StudyError, TrainingError
from pipeline.params import Row
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.training.training import Training

LOOK_EVERY_S = 0.5
WORKER_BYTES = 700_000_000  # of a process with torch and Ray loaded, before it has a network
KEPT_BYTES = 12  # per element that a layer keeps (see `kept_per_pixel` of a network)
LAYERS = 50  # assumed of a network whose row states no depth
RECOMPUTED = 0.1  # the share of it kept with activation checkpointing

Watch = Callable[[Training], AbstractContextManager[object]]
"""What surrounds a row's training here: its lock, its progress, its curves."""


@dataclass
class Seat:
    """What one row occupies of this machine while it trains."""

    training: Training
    cores: float
    gpus: float
    memory_bytes: float
    failures: int = 0
    update: int = 0
    around: ExitStack = field(default_factory=ExitStack)
    actor: Any = None


class Worker:
    """A process that trains rows, one after another."""

    def train(self, training: Training, arrays: Path, gpus: float) -> StudyError | None:
        """Runs a row's training until it is finished; returns our error if it raised one."""
        from pipeline.cluster import trainer  # imports torch: the worker has started before that

        try:
            config = trainer.config_here(training, arrays, time.time())
            if training.row.worker_bounds[1] > 1:
                trainer.train_several_here(config)
            else:
                trainer.train_one({**config, "decoders": training.row.threads}, use_gpu=gpus > 0)
        except StudyError as error:
            return error
        return None


def _layers(row: Row) -> int:
    return row.network.depth or LAYERS


def predicted_work(training: Training) -> float:
    """Returns a number that grows with a row's training time: layers, pixels and images, per thread."""
    row = training.row
    per_image = _layers(row) * (row.crop_px or 1) ** 2
    threads = row.threads * row.worker_bounds[0]
    return per_image * row.global_batch_size * training.schedule.total_updates / threads


def memory_bytes(training: Training, pixels: int) -> float:
    """Returns about how much memory a row's workers take on a CPU; `pixels` are those of one input."""
    row, low = training.row, training.row.worker_bounds[0]
    images = row.global_batch_size / row.gradient_accumulation_steps
    kept = images * _layers(row) * pixels * row.network.kept_per_pixel * KEPT_BYTES
    return low * WORKER_BYTES + kept * (RECOMPUTED if row.activation_checkpointing else 1)


def train_side_by_side(
    trainings: Sequence[Training], arrays: Path, pixels: int, gpus_each: float, watch: Watch
) -> dict[str, StudyError]:
    """Trains all rows; returns the errors of those that failed, by name.

    A row whose `watch` raises a StudyError is not trained and has that error. No row's error is raised.
    One alone is trained in this process, which takes half the processor time of a small training.
    """
    if len(trainings) == 1:
        return _train_alone(trainings[0], arrays, watch)
    failed: dict[str, StudyError] = {}
    with session.embedded():
        all_gpus = ray.cluster_resources().get("GPU", 0.0)
        waiting = [
            _seat(training, pixels, all_gpus, gpus_each)
            for training in sorted(trainings, key=predicted_work, reverse=True)
        ]
        crew = _Crew(arrays.resolve(), all_gpus)
        try:
            while waiting or crew.running:
                for seat in [seat for seat in waiting if crew.has_room(seat)]:
                    if not crew.has_room(seat):
                        continue
                    waiting.remove(seat)
                    try:
                        if not seat.failures:
                            seat.around.enter_context(watch(seat.training))
                        crew.begin(seat)
                    except StudyError as error:
                        failed[seat.training.name] = error
                for seat, wrong in crew.ended():
                    if wrong is not None and _may_go_on(seat, wrong):
                        waiting.insert(0, seat)
                        continue
                    seat.around.close()
                    if wrong is not None:
                        failed[seat.training.name] = _said(seat, wrong)
        finally:
            crew.leave()
    return failed


def _train_alone(training: Training, arrays: Path, watch: Watch) -> dict[str, StudyError]:
    from pipeline.cluster.trainer import train

    try:
        with watch(training):
            train(training, arrays, time.time())
    except StudyError as error:
        return {training.name: error}
    except Exception as error:  # noqa: BLE001 - torch's, such as of a device's memory: told as a seat's is
        what = f"{training.name}: {type(error).__name__}: {error}"
        return {training.name: TrainingError(what)}
    return {}


def _seat(training: Training, pixels: int, all_gpus: float, gpus_each: float) -> Seat:
    workers = training.row.worker_bounds[0]
    gpus = min(all_gpus, workers * (gpus_each or 1.0))
    cores = min(machine.cores(), training.row.threads * workers)
    return Seat(training, cores, gpus, memory_bytes(training, pixels))


def _may_go_on(seat: Seat, error: Exception) -> bool:
    """Counts a worker's death; tells whether the row may start again from its last checkpoint."""
    if isinstance(reason(error), StudyError):
        return False
    now = update_of(CheckpointStore.of(seat.training, Storage(patience_s=patience_s())))
    seat.failures = 1 if now > seat.update else seat.failures + 1
    seat.update = now
    if seat.failures > MAX_FAILURES:
        return False
    print(f"{seat.training.name}: {reason(error)}: going on from update {now:,}", flush=True)
    return True


def _said(seat: Seat, error: Exception) -> StudyError:
    what = reason(error)
    if isinstance(what, StudyError):
        return what
    return TrainingError(
        f"{seat.training.name}: failed {seat.failures} times at update {seat.update:,} without a "
        f"checkpoint in between; the last time: {what}"
    )


class _Crew:
    """The workers, and what they leave free on the machine."""

    def __init__(self, arrays: Path, gpus: float) -> None:
        self._arrays = arrays
        self.running: dict[Any, Seat] = {}
        self._idle: list[Any] = []
        self._cores, self._gpus = float(machine.cores()), gpus
        self._memory = float(machine.free_memory_bytes())

    def has_room(self, seat: Seat) -> bool:
        """Tells whether a row fits beside those in training; if there are none, every row does."""
        if not self.running:
            return True
        return (
            seat.cores <= self._cores
            and seat.gpus <= self._gpus + 1e-9
            and (seat.memory_bytes <= self._memory or seat.gpus > 0)
        )

    def begin(self, seat: Seat) -> None:
        """Gives a row to a worker."""
        several = seat.training.row.worker_bounds[1] > 1
        if seat.gpus or several or not self._idle:
            # a row with a GPU or several workers gets a new process; cores are counted here, not by Ray
            gpus = 0.0 if several else seat.gpus
            seat.actor = ray.remote(Worker).options(num_cpus=0, num_gpus=gpus).remote()
        else:
            seat.actor = self._idle.pop()
        self._take(seat, -1)
        self.running[seat.actor.train.remote(seat.training, self._arrays, seat.gpus)] = seat

    def ended(self) -> list[tuple[Seat, Exception | None]]:
        """Waits a moment; returns the rows that have ended, each with what went wrong or None."""
        done, _ = ray.wait(list(self.running), timeout=LOOK_EVERY_S) if self.running else ([], [])
        found: list[tuple[Seat, Exception | None]] = []
        for call in done:
            seat = self.running.pop(call)
            self._take(seat, +1)
            try:
                error = ray.get(call)
            except RayError as died:
                error = died
                ray.kill(seat.actor)
            else:
                if seat.gpus or seat.training.row.worker_bounds[1] > 1:
                    ray.kill(seat.actor)
                else:
                    self._idle.append(seat.actor)
            found.append((seat, error))
        return found

    def leave(self) -> None:
        """Closes what surrounds the rows that are still in training: they are interrupted."""
        for seat in self.running.values():
            seat.around.__exit__(*sys.exc_info())  # the interruption itself

    def _take(self, seat: Seat, sign: int) -> None:
        self._cores += sign * seat.cores
        self._gpus += sign * seat.gpus
        self._memory += sign * seat.memory_bytes
