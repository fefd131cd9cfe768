"""Ray: embedded in the stage that needs it, or joined by a driver on a cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from filelock import FileLock, Timeout
from ray.util.state import list_actors

from pipeline.errors import BusyError

LOCK_TIMEOUT_S = 5.0  # a killed predecessor needs a moment to go
WORKERS = ("RayTrainWorker", "ImplicitFunc")  # Ray Train's, and Ray Tune's of a trial's function


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def embedded() -> Iterator[None]:
    """Runs Ray on this machine, on loopback, for as long as the context lasts."""
    ray.init(
        address="local",
        num_cpus=cores(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def joined() -> Iterator[None]:
    """Joins the cluster on whose head this driver runs; what workers print, this process prints."""
    ray.init(address="auto", log_to_driver=True, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def cluster_id() -> str:
    """Returns the name of the running cluster; another start of it has another."""
    name: str = ray.get_runtime_context().get_session_name()
    return name


def has_workers() -> bool:
    """Tells whether this driver's run has a worker that lives."""
    job = ray.get_runtime_context().get_job_id()
    mine = list_actors(
        filters=[("job_id", "=", job), ("state", "=", "ALIVE")],
        raise_on_missing_output=False,  # what a filter leaves out is missing to Ray
    )
    return any(actor.class_name in WORKERS for actor in mine)


@contextmanager
def exclusively(lock: Path, what: str) -> Iterator[None]:
    """Holds a lock file, so that one process at a time does `what`; raises BusyError."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise BusyError(
            f"{what} is already under way in another process on this machine: wait for it or end it"
        ) from None
    try:
        yield
    finally:
        held.release()
