"""The schedule of section 3.4: the rate is divided by ten when the error plateaus."""

import math
from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from pipeline.training.schedules.warming import History, WarmedUp


class PlateauSchedule(WarmedUp):
    """Learning rate divided by ten when the error plateaus (section 3.4), at most `max_drops` times.

    A plateau is `patience_reports` consecutive lines of the history without a validation error that is
    more than `min_gain_pct` points below the best one before.
    """

    shape: Literal["plateau"]
    max_drops: PositiveInt
    patience_reports: PositiveInt
    min_gain_pct: NonNegativeFloat

    def _decayed(self, update: int, history: History) -> float:
        best, waited, drops = math.inf, 0, 0
        for line in history:
            if line.val_error_pct < best - self.min_gain_pct:
                best, waited = line.val_error_pct, 0
            else:
                waited += 1
            if waited == self.patience_reports:
                waited, drops = 0, drops + 1
        return float(self.base_lr / 10 ** min(drops, self.max_drops))
