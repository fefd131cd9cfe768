"""Progress with a rate and the time left: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

PLAIN_LINE_EVERY_S = 10.0
LIFE_EVERY_S = 600.0  # a line that says that it still runs, where nothing has changed


def spoken(seconds: float) -> str:
    """Returns a duration as people say it: 90 s, 2 h 05 min, 3 d 4 h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 3600:
        return f"{seconds:.0f} s"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{hours // 24} d {hours % 24} h"


class Progress:
    """Shows how many of `total` units of work are done; plain lines come where that has changed, at most every ten
    seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._first = self._lined = self._done = done
        self._started = self._printed = self._changed = time.monotonic()
        self._note = ""
        self._bar = (
            tqdm(
                total=total, initial=done, desc=label, unit=unit, unit_scale=total >= 100_000,
                dynamic_ncols=True, smoothing=0.1,
            )
            if sys.stderr.isatty()
            else None
        )  # fmt: skip

    def to(self, done: int, note: str = "") -> None:
        """Moves to `done` units; `note` is shown at the end of the line."""
        has_changed, now = done != self._done, time.monotonic()
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=not has_changed)
            if has_changed:  # an update by nothing would set the clock of the bar's rate anew
                self._bar.update(done - self._done)
        if has_changed:
            self._changed = now
        self._done, self._note = done, note or self._note
        every = PLAIN_LINE_EVERY_S if self._done != self._lined else LIFE_EVERY_S
        if self._bar is None and now - self._printed >= every:
            self._line()

    def advance(self, units: int) -> None:
        """Moves on by `units`."""
        self.to(self._done + units)

    def _line(self) -> None:
        self._printed, self._lined = time.monotonic(), self._done
        rate = (self._done - self._first) / max(self._changed - self._started, 1e-9)
        since = self._printed - self._changed
        left = "starting"
        if rate > 0:
            left = f"{spoken(max(0.0, (self._total - self._done) / rate - since))} left"
        scale, unit = (1e6, "MB") if self._unit == "B" else (1, self._unit)
        share = 100 * self._done / max(self._total, 1)
        print(
            f"{self._label}: {self._done / scale:,.0f}/{self._total / scale:,.0f} {unit} "
            f"({share:.0f} %), {rate / scale:,.1f} {unit}/s, {left}{', ' + self._note if self._note else ''}",
            flush=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self._done > self._lined:
            self._line()
