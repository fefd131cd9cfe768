"""Checkpoints are committed while the training goes on: one at a time, and the last before it ends."""

import threading
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StudyError


class Checkpoints(Protocol):
    """Where a training's checkpoints are kept: S3, by `pipeline.storage.checkpoints`."""

    def latest(self) -> Checkpoint | None:
        """Returns the last committed checkpoint, or None."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Commits a checkpoint."""


class Saving:
    """While the context lasts, commits the checkpoints that it is given, each by a thread of its own.

    A commit that failed raises at the next checkpoint, or at the end: no training goes further than one
    interval beyond what is stored. At the end of the context every checkpoint is committed.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Begins to commit a checkpoint once the one before is committed."""
        self.wait()

        def commit() -> None:
            try:
                self._checkpoints.save(checkpoint)
            except BaseException as failure:  # noqa: BLE001 - raised where the training is
                self._failure = failure

        # a daemon: whoever interrupts a training does not wait for S3
        self._thread = threading.Thread(target=commit, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until the last checkpoint is committed; raises what its commit raised."""
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            self.wait()
        elif issubclass(kind, Exception):  # what it says of the last checkpoint shall be true
            with suppress(StudyError):
                self.wait()
