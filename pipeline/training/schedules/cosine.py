"""Half a cosine (Loshchilov and Hutter, arXiv 1608.03983)."""

import math
from typing import Literal

from pipeline.training.schedules.warming import History, WarmedUp


class CosineSchedule(WarmedUp):
    """Half a cosine from `base_lr` to zero (Loshchilov and Hutter, arXiv 1608.03983, no restart)."""

    shape: Literal["cosine"]

    def _decayed(self, update: int, history: History) -> float:
        return self.base_lr * (1 + math.cos(math.pi * update / self.total_updates)) / 2
