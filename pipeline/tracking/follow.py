"""Follows a training live, by its history on S3: progress for the user, curves for MLflow.

The history is cumulative, so a poll that fails or comes late loses nothing, and neither S3 nor
MLflow can slow the training down or stop it; nor does the progress display wait for MLflow.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from pipeline.checkpoint import CheckpointFacts, Record
from pipeline.errors import StudyError
from pipeline.progress import Progress

POLL_S = 2.0
JOIN_S = 20.0

History = Sequence[Record]
Facts = Callable[[], CheckpointFacts | None]
Publish = Callable[[History], None]


class Publisher:
    """While the context lasts, publishes the last history that it was offered for each training.

    It does so in a thread of its own, so that offering a history never blocks.
    """

    def __init__(self, publish: Callable[[str, History], None]) -> None:
        self._publish, self._offered = publish, dict[str, History]()
        self._changed, self._done = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def offer(self, name: str, history: History) -> None:
        """Queues a training's history for publication, instead of one that still waits."""
        with self._changed:
            self._offered[name] = history
            self._changed.notify()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with self._changed:
            self._done = True
            self._changed.notify()
        self._thread.join(JOIN_S if kind is None else 0)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._offered or self._done)
                if not self._offered:
                    return
                name = next(iter(self._offered))
                history = self._offered.pop(name)
            self._publish(name, history)


class Follower:
    """While the context lasts, shows and publishes what the last checkpoint says."""

    def __init__(self, label: str, total_updates: int, facts: Facts, publish: Publish) -> None:
        self._label, self._total = label, total_updates
        self._facts, self._publish = facts, publish
        self._done, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join(JOIN_S)

    def _follow(self) -> None:
        progress: Progress | None = None
        published = 0
        while True:
            facts = self._look()
            progress = progress or Progress(
                self._label, self._total, "updates", facts.update if facts else 0
            )
            if facts is not None:
                history = facts.history
                last = history[-1]
                progress.to(
                    facts.update,
                    f"train {last.train_error_pct:.1f} % val {last.val_error_pct:.1f} % wrong, "
                    f"{last.train_images_per_s:,.0f} images/s",
                )
                if len(history) > published:
                    self._publish(history)
                    published = len(history)
            if self._ended:
                progress.__exit__(None, None, None)
                return
            self._ended = self._done.wait(POLL_S)

    def _look(self) -> CheckpointFacts | None:
        try:
            return self._facts()
        except StudyError as error:
            print(f"{self._label}: cannot read its progress: {error}", file=sys.stderr, flush=True)
            return None
