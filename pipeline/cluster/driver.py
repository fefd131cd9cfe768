"""The driver of a job: what the Jobs API starts on the cluster's head for one piece of work.

The driver of a single worker imports only Ray while it waits: a hundred megabytes. A Ray Train group
or a search that waits for its workers takes a gigabyte, so only a few have a place to wait: all drivers
run on the head, a place is a lock file there, and a driver that dies gives its place back.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from filelock import FileLock, Timeout
from ray.util.state.exception import RayStateApiException

from pipeline.cluster import lone, session
from pipeline.cluster.client import SAID_WHY, SPEC
from pipeline.errors import StudyError
from pipeline.files import private_folder

PLACES = 2  # runs that may wait for resources at once with everything loaded
LOOK_EVERY_S = 1.0


@contextmanager
def turn() -> Iterator[FileLock]:
    """Holds one of the places for runs that wait for their workers."""
    locks = [
        FileLock(private_folder() / f"{session.cluster_id()}-{number}.lock", thread_local=False)
        for number in range(PLACES)
    ]
    if (held := _first_free(locks)) is None:
        print(f"waiting: {PLACES} other runs are waiting for resources first", flush=True)
        while (held := _first_free(locks)) is None:
            time.sleep(LOOK_EVERY_S)
    try:
        yield held
    finally:
        held.release()


def _first_free(locks: list[FileLock]) -> FileLock | None:
    """Acquires and returns the first lock that nobody holds, or returns None if there is none."""
    for lock in locks:
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return lock
    return None


def give_back_once_running(held: FileLock) -> None:
    """Gives the place to the next run as soon as this one has its workers."""

    def watch() -> None:
        running = False
        while held.is_locked and not running:
            time.sleep(LOOK_EVERY_S)
            with suppress(RayStateApiException):  # a busy head will answer next time
                running = session.has_workers()
        held.release()

    threading.Thread(target=watch, daemon=True).start()


def main(spec: dict[str, Any]) -> None:
    """Does the work that a job's document describes."""
    with session.joined():
        if spec["kind"] == "training" and spec["row"]["workers"] == 1:
            lone.train(spec)
            return
        if spec["kind"] in ("packing", "evaluation"):  # of Ray Data: they wait for no group
            from pipeline.cluster.evaluator import evaluate_there
            from pipeline.cluster.packer import pack_there

            {"packing": pack_there, "evaluation": evaluate_there}[spec["kind"]](spec)
            return
        with turn() as held:
            # imported here, not above: they import torch
            from pipeline.cluster.trainer import train_group
            from pipeline.cluster.tuner import search_there

            give_back_once_running(held)
            {"training": train_group, "search": search_there}[spec["kind"]](spec)


if __name__ == "__main__":
    try:
        main(json.loads(os.environ[SPEC]))
    except StudyError as error:
        print(f"error: {error}", flush=True)
        sys.exit(SAID_WHY)
