"""Follows a training live, by its history on S3: progress for the user, curves for MLflow.

The history is cumulative, so a poll that fails or comes late loses nothing, and neither S3 nor
MLflow can slow the training down or stop it (`pipeline.tracking.sending`).
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from pipeline.checkpoint import CheckpointFacts, Record
from pipeline.errors import StudyError
from pipeline.progress import Progress
from pipeline.tracking.run import Status

POLL_S = 2.0
JOIN_S = 20.0

History = Sequence[Record]
Facts = Callable[[], CheckpointFacts | None]
Usage = Sequence[Mapping[str, float]]
Publish = Callable[[History, Status, Usage], None]


class Follower:
    """While the context lasts, shows and publishes what the last checkpoint says.

    At its end it publishes how the training ended; if it was interrupted, not: on a cluster it goes on. So it
    does after an error of the type `lost`, which says that the cluster could not be asked.
    """

    def __init__(
        self, label: str, total_updates: int, facts: Facts, publish: Publish,
        lost: type[Exception] | tuple[()] = (),
    ) -> None:  # fmt: skip
        self._label, self._total = label, total_updates
        self._facts, self._publish, self._lost = facts, publish, lost
        self._done, self._ended = threading.Event(), False
        self._interrupted = False
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
        self._interrupted = isinstance(error, self._lost) or (
            kind is not None and not issubclass(kind, Exception)
        )
        self._done.set()
        self._thread.join(JOIN_S)

    def _follow(self) -> None:
        progress: Progress | None = None
        history: History = ()
        usage: Usage = ()
        self._publish(history, "RUNNING", usage)
        while True:
            facts = self._look()
            progress = progress or Progress(
                self._label, self._total, "updates", facts.update if facts else 0
            )
            if facts is not None:
                last = facts.history[-1]
                progress.to(
                    facts.update,
                    f"train {last.train_error_pct:.1f} % val {last.val_error_pct:.1f} % wrong, "
                    f"{last.train_images_per_s:,.0f} images/s"
                    + (", evaluating" if facts.is_finished and not self._ended else ""),
                )
                if len(facts.history) > len(history):
                    history, usage = facts.history, facts.usage
                    self._publish(history, "RUNNING", usage)
            if self._ended:
                progress.__exit__(None, None, None)
                if not self._interrupted:
                    done = bool(history) and history[-1].update >= self._total
                    self._publish(history, "FINISHED" if done else "FAILED", usage)
                return
            self._ended = self._done.wait(POLL_S)

    def _look(self) -> CheckpointFacts | None:
        try:
            return self._facts()
        except StudyError as error:
            print(f"{self._label}: cannot read its progress: {error}", file=sys.stderr, flush=True)
            return None
