"""The driver of a job: what the Jobs API starts on the cluster's head for one piece of work.

Until it has a place it imports Ray alone: a hundred megabytes, where a Ray Train run that waits for
its workers takes a gigabyte. All drivers live on the head, so a lock file there is the place, and
a driver that dies gives it back.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.cluster import session
from pipeline.cluster.jobs import SAID_WHY, SPEC
from pipeline.errors import StudyError

PLACES = 2  # runs that may wait for resources at once with everything loaded
LOOK_EVERY_S = 1.0


@contextmanager
def place() -> Iterator[FileLock]:
    """Holds one of the places of runs that wait for their workers."""
    folder = Path(tempfile.gettempdir()) / f"resnet-study-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    locks = [
        FileLock(folder / f"{session.cluster_id()}-{number}.lock", thread_local=False)
        for number in range(PLACES)
    ]
    told = False
    while True:
        for lock in locks:
            with suppress(Timeout):
                lock.acquire(timeout=0)
                break
        else:
            if not told:
                print(f"waiting: {PLACES} runs before this one wait for resources", flush=True)
                told = True
            time.sleep(LOOK_EVERY_S)
            continue
        break
    try:
        yield lock
    finally:
        lock.release()


def give_back_once_running(held: FileLock) -> None:
    """Gives the place to the next run as soon as this one has its workers."""

    def watch() -> None:
        while held.is_locked and not session.has_workers():
            time.sleep(LOOK_EVERY_S)
        held.release()

    threading.Thread(target=watch, daemon=True).start()


def main(spec: dict[str, Any]) -> None:
    """Does the work of a job's document."""
    with session.joined(), place() as held:
        # imported here and not above: they bring torch
        from pipeline.cluster.train import train_there
        from pipeline.cluster.tune import search_there

        give_back_once_running(held)
        {"training": train_there, "search": search_there}[spec["kind"]](spec)


if __name__ == "__main__":
    try:
        main(json.loads(os.environ[SPEC]))
    except StudyError as error:
        print(f"error: {error}", flush=True)
        sys.exit(SAID_WHY)
