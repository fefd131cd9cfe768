"""Trains rows side by side on this machine: one embedded Ray, warm workers, the longest row first.

As many train at once as cores, free memory and GPUs allow. A worker process trains one row after
another; one that dies is replaced, and its row goes on from its last checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline import machine
from pipeline.cluster import session
from pipeline.cluster.again import MAX_FAILURES, reason, update_of
from pipeline.errors import StudyError, TrainingError
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.s3 import Storage
from pipeline.training.job import TrainJob

LOOK_EVERY_S = 0.5
WORKER_BYTES = 700_000_000  # of a process that has torch and Ray, before it has a network
# elements that a layer keeps for its backward pass, for each pixel of the input, in the mean over a
# network's stages; each is kept about three times (convolution, normalization, ReLU) as float32
KEPT_PER_PIXEL = {"cifar": 9.3, "imagenet": 3.8}
KEPT_BYTES = 12
RECOMPUTED = 0.1  # of that with activation checkpointing

Watch = Callable[[TrainJob], AbstractContextManager[object]]
"""What surrounds a row's training here: its lock, its progress, its curves."""


@dataclass
class Place:
    """What one row takes of this machine while it trains."""

    job: TrainJob
    cores: float
    gpus: float
    memory_bytes: float
    failures: int = 0
    update: int = 0
    around: ExitStack = field(default_factory=ExitStack)
    actor: Any = None


class Worker:
    """A process that trains rows, one after another."""

    def train(self, job: TrainJob, gpus: float) -> StudyError | None:
        """Brings a row's training to its end; returns an error of ours that it raised."""
        from pipeline.cluster import train  # torch: a worker is there before it has it

        try:
            config = train.config_here(replace(job, started=time.time()))
            if job.row.worker_bounds[1] > 1:
                train.train_several_here(config)
            else:
                train.train_one({**config, "decoders": job.row.threads}, use_gpu=gpus > 0)
        except StudyError as error:
            return error
        return None


def predicted_work(job: TrainJob) -> float:
    """Returns a number that grows with a row's time: layers, pixels, images, per thread."""
    row = job.row
    per_image = row.network.depth * (row.crop_px or 1) ** 2
    threads = row.threads * row.worker_bounds[0]
    return per_image * row.global_batch_size * job.schedule.total_updates / threads


def memory_bytes(job: TrainJob, pixels: int) -> float:
    """Returns about how much memory a row's workers take on a CPU; `pixels` are those of an input."""
    row, low = job.row, job.row.worker_bounds[0]
    images = row.global_batch_size / row.gradient_accumulation_steps
    kept = images * row.network.depth * pixels * KEPT_PER_PIXEL[row.network.family] * KEPT_BYTES
    return low * WORKER_BYTES + kept * (RECOMPUTED if row.activation_checkpointing else 1)


def train_side_by_side(
    jobs: Sequence[TrainJob], pixels: int, gpus_each: float, watch: Watch
) -> dict[str, StudyError]:
    """Trains all rows; returns the error of each that failed, by its name.

    A row whose `watch` raises a StudyError is left out with it. Raises nothing of a row's own.
    """
    failed: dict[str, StudyError] = {}
    with session.embedded():
        all_gpus = ray.cluster_resources().get("GPU", 0.0)
        waiting = [
            _place(job, pixels, all_gpus, gpus_each)
            for job in sorted(jobs, key=predicted_work, reverse=True)
        ]
        crew = _Crew(all_gpus)
        try:
            while waiting or crew.running:
                for place in [place for place in waiting if crew.has_room(place)]:
                    if not crew.has_room(place):
                        continue
                    waiting.remove(place)
                    try:
                        if not place.failures:
                            place.around.enter_context(watch(place.job))
                        crew.begin(place)
                    except StudyError as error:
                        failed[place.job.name] = error
                for place, wrong in crew.ended():
                    if wrong is not None and _may_go_on(place, wrong):
                        waiting.insert(0, place)
                        continue
                    place.around.close()
                    if wrong is not None:
                        failed[place.job.name] = _said(place, wrong)
        finally:
            crew.leave()
    return failed


def _place(job: TrainJob, pixels: int, all_gpus: float, gpus_each: float) -> Place:
    workers = job.row.worker_bounds[0]
    gpus = min(all_gpus, workers * (gpus_each or 1.0))
    cores = min(machine.cores(), job.row.threads * workers)
    return Place(job, cores, gpus, memory_bytes(job, pixels))


def _may_go_on(place: Place, error: Exception) -> bool:
    """Counts a worker's death; tells whether the row is begun again, from its last checkpoint."""
    if isinstance(reason(error), StudyError):
        return False
    now = update_of(CheckpointStore.of(place.job, Storage()))
    place.failures = 1 if now > place.update else place.failures + 1
    place.update = now
    if place.failures > MAX_FAILURES:
        return False
    print(f"{place.job.name}: {reason(error)}: going on from update {now:,}", flush=True)
    return True


def _said(place: Place, error: Exception) -> StudyError:
    what = reason(error)
    if isinstance(what, StudyError):
        return what
    return TrainingError(
        f"{place.job.name}: failed {place.failures} times at update {place.update:,} without a "
        f"checkpoint between; the last time: {what}"
    )


class _Crew:
    """The workers, and what they leave free of the machine."""

    def __init__(self, gpus: float) -> None:
        self.running: dict[Any, Place] = {}
        self._idle: list[Any] = []
        self._cores, self._gpus = float(machine.cores()), gpus
        self._memory = float(machine.free_memory_bytes())

    def has_room(self, place: Place) -> bool:
        """Tells whether a row fits beside those that train; alone every row does."""
        if not self.running:
            return True
        return (
            place.cores <= self._cores
            and place.gpus <= self._gpus + 1e-9
            and (place.memory_bytes <= self._memory or place.gpus > 0)
        )

    def begin(self, place: Place) -> None:
        """Gives a row to a worker."""
        several = place.job.row.worker_bounds[1] > 1
        if place.gpus or several or not self._idle:
            # of a GPU or of several workers a process of its own; cores are counted here, not by Ray
            gpus = 0.0 if several else place.gpus
            place.actor = ray.remote(Worker).options(num_cpus=0, num_gpus=gpus).remote()
        else:
            place.actor = self._idle.pop()
        self._take(place, -1)
        self.running[place.actor.train.remote(place.job, place.gpus)] = place

    def ended(self) -> list[tuple[Place, Exception | None]]:
        """Waits a moment; returns the rows that ended, with what went wrong."""
        done, _ = ray.wait(list(self.running), timeout=LOOK_EVERY_S) if self.running else ([], [])
        found: list[tuple[Place, Exception | None]] = []
        for call in done:
            place = self.running.pop(call)
            self._take(place, +1)
            try:
                error = ray.get(call)
            except RayError as died:
                error = died
                ray.kill(place.actor)
            else:
                if place.gpus or place.job.row.worker_bounds[1] > 1:
                    ray.kill(place.actor)
                else:
                    self._idle.append(place.actor)
            found.append((place, error))
        return found

    def leave(self) -> None:
        """Lets go of what surrounds the rows that still train: they are interrupted."""
        for place in self.running.values():
            place.around.close()

    def _take(self, place: Place, sign: int) -> None:
        self._cores += sign * place.cores
        self._gpus += sign * place.gpus
        self._memory += sign * place.memory_bytes
