"""Publishes for a bounded time, whatever state MLflow's server is in."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from pipeline.command import TIMES
from pipeline.errors import SlowServerError
from pipeline.tracking.address import tracking_uri

LIMIT_S = 20.0
AGAIN_S = 5.0
PATIENCE_S = 300.0  # for a run, besides its files
SLOWEST_BYTES_PER_S = 250_000  # a line of 2 Mbit/s
COMMAND = (sys.executable, "-m", "pipeline.commands.publish")


def publish(most_s: float = LIMIT_S) -> bool:
    """Runs `make publish` for at most `most_s` seconds and prints what is left; tells whether nothing is."""
    environ = {name: value for name, value in os.environ.items() if name != TIMES}  # it is no stage
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=environ,
    )  # fmt: skip
    why = ""
    try:
        said, complaints = process.communicate(timeout=most_s)
        if process.returncode:
            last = complaints.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
            why = last[0].removeprefix("error: ")
    except subprocess.TimeoutExpired:
        why = f"it took longer than {most_s:.0f} s"
        process.kill()
        said, _ = process.communicate()
    finally:
        process.kill()
    done = (said.strip().splitlines() or ["MLflow did not answer"])[-1]
    if why:
        print(f"warning: {done}: {why}; `make publish` sends the rest", file=sys.stderr)
        return False
    print(done)
    return True


def limit_s(size_bytes: int = 0) -> float:
    """Returns how long a run that sends so much may take."""
    return PATIENCE_S + size_bytes / SLOWEST_BYTES_PER_S


@contextmanager
def within(
    most_s: float, what: str = "taken a run", again: str = "`make publish`"
) -> Iterator[None]:
    """Raises SlowServerError if the block takes longer: MLflow's own limits are for each read, and a server may trickle.

    It does so again and again until the block is left, whoever catches it. For a process's main thread.
    """

    def give_up(*_: object) -> NoReturn:
        raise SlowServerError(
            f"MLflow at {tracking_uri()} has not {what} within {most_s:.0f} s: look at the server, "
            f"then {again} again"
        )

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, most_s, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
