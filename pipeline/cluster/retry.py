"""Starts a run again after a failure, until it has failed four times in a row without progress."""

import re
from collections.abc import Callable

from pipeline.errors import StudyError, TrainingError
from pipeline.storage.bucket import RESTART_S, external
from pipeline.storage.checkpoints import CheckpointStore

MAX_FAILURES = 3  # in a row, without a checkpoint between them
PATIENCE_S = 1800.0  # how long a process waits for an S3 that is not this machine's own
LONGEST = 400  # characters of a failure's text that are shown


def patience_s() -> float:
    """Returns how long this process waits for an S3 that does not answer."""
    return PATIENCE_S if external() else RESTART_S


def until_done(
    name: str,
    done: Callable[[], int],
    attempt: Callable[[], None],
    failures: tuple[type[Exception], ...],
) -> None:
    """Calls `attempt` until it returns; each call goes on from what is `done`, in updates or pieces.

    Raises an error of ours that a worker raised, and TrainingError after four `failures` in a row
    without progress; its text says what happened last, and on which node.
    """
    count = before = 0
    while True:
        try:
            attempt()
        except failures as error:
            now = done()
            count = 1 if now > before else count + 1
            before = now
            what = reason(error)
            if isinstance(what, StudyError):
                raise what from error
            if count > MAX_FAILURES:
                raise TrainingError(
                    f"{name}: failed {count} times at {now:,} without progress between; "
                    f"the last time: {what}"
                ) from error
            print(f"{name}: {what}: going on from {now:,}", flush=True)
        else:
            return


def update_of(checkpoints: CheckpointStore) -> int:
    """Returns the update of a training's last checkpoint."""
    facts = checkpoints.facts()
    return facts.update if facts else 0


def reason(error: Exception) -> StudyError | str:
    """Returns the error of ours that a worker raised, else one line on what happened and where."""
    workers = getattr(error, "worker_failures", {})
    for failure in (error, *workers.values()):
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, StudyError):
            return cause
    texts = [f"worker {rank}: {failure}" for rank, failure in workers.items()] or [str(error)]
    return _short(texts[0])


def _short(text: str) -> str:
    """Returns the lines of one of Ray's long messages that say what died, where and why."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    facts = [line for line in lines[1:] if re.match(r"(ip|pid|class_name): ?\S", line)]
    causes = [line for line in lines[1:] if "died" in line or "killed" in line or "Error" in line]
    return " ".join([*lines[:1], *facts, *causes[-1:]])[:LONGEST]
