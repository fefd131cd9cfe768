"""Commits checkpoints while the training goes on: one at a time, and the last before it ends."""

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
    """While the context lasts, commits the checkpoints that it is given, each in a thread of its own.

    The error of a failed commit is raised at the next checkpoint or at the end, so no training gets more
    than one interval ahead of what is stored. If the context ends without an error, every checkpoint is
    committed.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Starts to commit a checkpoint once the previous one is committed."""
        self.wait()

        def commit() -> None:
            try:
                self._checkpoints.save(checkpoint)
            except BaseException as failure:  # noqa: BLE001 - raised where the training is
                self._failure = failure

        # a daemon, so that an interrupted training does not wait for S3
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
        elif issubclass(kind, Exception):  # what it says of the last checkpoint must be true
            with suppress(StudyError):
                self.wait()
