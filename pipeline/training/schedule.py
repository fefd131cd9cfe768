"""Learning-rate schedules: small YAML documents; positions are optimizer updates, counted from 0.

The paper's (sections 3.4 and 4.2): 0.1, divided by ten at 32k and 48k updates, stopped at 64k.
"""

import math
from bisect import bisect_right
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.params import Section, read_yaml, validate


class WarmUp(Section):
    """The first updates: from `start_lr` straight up to the schedule, or held at it."""

    kind: Literal["linear", "constant"]
    updates: PositiveInt
    start_lr: PositiveFloat


class _Schedule(Section):
    base_lr: PositiveFloat
    total_updates: PositiveInt
    warmup: WarmUp | None

    @model_validator(mode="after")
    def _warms_up_within_total(self) -> Self:
        if self.warmup is not None and self.warmup.updates >= self.total_updates:
            raise ValueError(
                f"warmup.updates {self.warmup.updates} is not below total_updates "
                f"{self.total_updates}: shorten the warm-up"
            )
        return self

    def _decayed(self, update: int) -> float:
        raise NotImplementedError

    def lr_at(self, update: int) -> float:
        """Returns the learning rate of `update`."""
        warmup = self.warmup
        if warmup is None or update >= warmup.updates:
            return self._decayed(update)
        if warmup.kind == "constant":
            return warmup.start_lr
        share = update / warmup.updates
        return warmup.start_lr + share * (self._decayed(warmup.updates) - warmup.start_lr)


class StepSchedule(_Schedule):
    """Learning rate divided by ten at each drop."""

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

    def _decayed(self, update: int) -> float:
        return float(self.base_lr / 10 ** bisect_right(self.drops, update))


class CosineSchedule(_Schedule):
    """Half a cosine from `base_lr` to zero (Loshchilov and Hutter, arXiv 1608.03983, no restart)."""

    shape: Literal["cosine"]

    def _decayed(self, update: int) -> float:
        return self.base_lr * (1 + math.cos(math.pi * update / self.total_updates)) / 2


Schedule = Annotated[StepSchedule | CosineSchedule, Field(discriminator="shape")]


def load_schedule(path: Path) -> StepSchedule | CosineSchedule:
    """Returns the schedule in a YAML file; raises ParamsError where it is none."""
    schedule: StepSchedule | CosineSchedule = validate(Schedule, read_yaml(path), str(path))
    return schedule
