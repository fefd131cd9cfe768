"""The schedule of section 4.2: the rate is divided by ten at named updates."""

from bisect import bisect_right
from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from pipeline.training.schedules.warming import History, WarmedUp


class StepSchedule(WarmedUp):
    """Learning rate divided by ten at each drop (section 4.2)."""

    shape: Literal["step"]
    drops: tuple[PositiveInt, ...]

    @model_validator(mode="after")
    def _drops_in_order(self) -> Self:
        if (
            list(self.drops) != sorted(set(self.drops))
            or max(self.drops, default=0) >= self.total_updates
        ):
            raise ValueError(
                f"drops {list(self.drops)} must rise and lie below total_updates {self.total_updates}"
            )
        return self

    def _decayed(self, update: int, history: History) -> float:
        return float(self.base_lr / 10 ** bisect_right(self.drops, update))
