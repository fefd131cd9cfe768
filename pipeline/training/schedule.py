"""Learning-rate schedules: small YAML documents; positions are optimizer updates, counted from 0.

The paper's (sections 3.4 and 4.2): 0.1, divided by ten at 32k and 48k updates, stopped at 64k; for 110
layers 0.01 until the training error is below 80 %; on ImageNet divided by ten at plateaus. What
depends on errors is read off the history, which is part of every checkpoint: a schedule has no state.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pipeline.params import Section, read_yaml, validate
from pipeline.training.history import Record

History = Sequence[Record]


class LinearWarmUp(Section):
    """From `start_lr` straight up to the schedule, in so many updates."""

    kind: Literal["linear"]
    updates: PositiveInt
    start_lr: PositiveFloat


class ConstantWarmUp(Section):
    """`start_lr` for so many updates."""

    kind: Literal["constant"]
    updates: PositiveInt
    start_lr: PositiveFloat


class ErrorWarmUp(Section):
    """`start_lr` until a line of the history has a training error below `train_error_pct`.

    Section 4.2, for 110 layers. The history has a line every `report_every_updates` updates, and its
    training error is the mean since the line before.
    """

    kind: Literal["until_error"]
    train_error_pct: PositiveFloat
    start_lr: PositiveFloat


WarmUp = Annotated[LinearWarmUp | ConstantWarmUp | ErrorWarmUp, Field(discriminator="kind")]


class _Schedule(Section):
    base_lr: PositiveFloat
    total_updates: PositiveInt
    warmup: WarmUp | None

    @model_validator(mode="after")
    def _warms_up_within_total(self) -> Self:
        updates = getattr(self.warmup, "updates", 0)
        if updates >= self.total_updates:
            raise ValueError(
                f"warmup.updates {updates} is not below total_updates {self.total_updates}: shorten "
                "the warm-up"
            )
        return self

    def _decayed(self, update: int, history: History) -> float:
        raise NotImplementedError

    def lr_at(self, update: int, history: History) -> float:
        """Returns the learning rate of `update`; `history` has the lines up to it, and no others."""
        warmup = self.warmup
        if isinstance(warmup, ErrorWarmUp):
            if not any(line.train_error_pct < warmup.train_error_pct for line in history):
                return warmup.start_lr
        elif warmup is not None and update < warmup.updates:
            if isinstance(warmup, ConstantWarmUp):
                return warmup.start_lr
            share = update / warmup.updates
            return warmup.start_lr + share * (
                self._decayed(warmup.updates, history) - warmup.start_lr
            )
        return self._decayed(update, history)


class StepSchedule(_Schedule):
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


class CosineSchedule(_Schedule):
    """Half a cosine from `base_lr` to zero (Loshchilov and Hutter, arXiv 1608.03983, no restart)."""

    shape: Literal["cosine"]

    def _decayed(self, update: int, history: History) -> float:
        return self.base_lr * (1 + math.cos(math.pi * update / self.total_updates)) / 2


class PlateauSchedule(_Schedule):
    """Learning rate divided by ten when the error plateaus (section 3.4), at most `max_drops` times.

    A plateau is `patience_reports` lines of the history in a row without a validation error that is
    at least `min_gain_pct` points below the best one before.
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


Schedule = Annotated[StepSchedule | CosineSchedule | PlateauSchedule, Field(discriminator="shape")]


def load_schedule(path: Path, wanted_by: str = "") -> Schedule:
    """Returns the schedule in a YAML file; raises ParamsError where it is none.

    `wanted_by` is the key of params.yaml that names it.
    """
    schedule: Schedule = validate(Schedule, read_yaml(path, wanted_by), str(path))
    return schedule
