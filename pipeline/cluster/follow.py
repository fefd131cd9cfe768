"""Follows a training by its history on S3: progress for the person, curves for MLflow, live.

The history is cumulative, so a poll that fails or comes late loses nothing, and neither S3 nor
MLflow can slow the training down or stop it.
"""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pipeline.errors import StudyError
from pipeline.progress import Progress

POLL_S = 2.0
JOIN_S = 30.0

Facts = Callable[[], dict[str, Any] | None]
Publish = Callable[[list[dict[str, Any]]], None]


class Follower:
    """While the context lasts, shows and publishes what the last checkpoint says."""

    def __init__(self, label: str, total_updates: int, facts: Facts, publish: Publish) -> None:
        self._label, self._total = label, total_updates
        self._facts, self._publish = facts, publish
        self._done = threading.Event()
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
            last_turn = self._done.wait(POLL_S)
            try:
                facts = self._facts()
            except StudyError as error:
                print(f"{self._label}: cannot look: {error}", file=sys.stderr, flush=True)
                facts = None
            if facts is not None:
                history = facts["history"]
                progress = progress or Progress(
                    self._label, self._total, "updates", 0 if last_turn else facts["update"]
                )
                last = history[-1]
                progress.to(
                    facts["update"],
                    f"train {last['train_error_pct']:.1f} % val {last['val_error_pct']:.1f} % wrong, "
                    f"{last['train_images_per_s']:,.0f} images/s",
                )
                if len(history) > published:
                    self._publish(history)
                    published = len(history)
            if last_turn:
                if progress is not None:
                    progress.__exit__(None, None, None)
                return
