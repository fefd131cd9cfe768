"""A busy machine: as many endless one-thread loops as there are cores, at the same priority.

python -m benchmarks.busy [seconds]      # ten minutes by default
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.machine import cores

LONGEST_S = 600.0


def _loop(seconds: float, parent: int) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.getppid() == parent:  # no loop outlives its starter
        for _ in range(100_000):
            pass


@contextmanager
def busy(seconds: float = LONGEST_S) -> Iterator[None]:
    """Keeps every core busy while the context lasts, but for at most `seconds`."""
    context = multiprocessing.get_context("spawn")
    loops = [
        context.Process(target=_loop, args=(seconds, os.getpid()), daemon=True)
        for _ in range(cores())
    ]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()


if __name__ == "__main__":
    length = float(sys.argv[1]) if len(sys.argv) > 1 else LONGEST_S
    with busy(length):
        time.sleep(length)
