"""Progress with a rate and the time left: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

PLAIN_LINE_EVERY_S = 10.0


class Progress:
    """Shows how many of `total` units of work are done; plain lines come at most every ten seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._first = self._lined = self._done = done
        self._started = self._printed = time.monotonic()
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
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._done)
        self._done, self._note = done, note or self._note
        if self._bar is None and time.monotonic() - self._printed >= PLAIN_LINE_EVERY_S:
            self._line()

    def advance(self, units: int) -> None:
        """Moves on by `units`."""
        self.to(self._done + units)

    def _line(self) -> None:
        self._printed, self._lined = time.monotonic(), self._done
        rate = (self._done - self._first) / max(self._printed - self._started, 1e-9)
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate > 0 else "starting"
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
