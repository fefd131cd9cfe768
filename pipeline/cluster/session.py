"""The embedded Ray: started by the stage that needs it, gone with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from filelock import FileLock, Timeout

from pipeline.errors import BusyError, ResourceError

LOCK_TIMEOUT_S = 5.0  # a killed predecessor needs a moment to go


def refuse_cluster() -> None:
    """Makes sure that no cluster is asked for.

    Raises ResourceError where RAY_ADDRESS names a cluster: submitting to one is not built yet.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        raise ResourceError(
            f"RAY_ADDRESS is {address}, but this version trains on the embedded Ray only "
            "(submitting to a cluster is not built yet): unset RAY_ADDRESS"
        )


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def embedded() -> Iterator[None]:
    """Runs Ray on this machine, on loopback, for as long as the context lasts."""
    refuse_cluster()
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
