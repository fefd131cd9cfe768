"""What all schedules have in common: a warm-up, and a length in optimizer updates, counted from 0."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.checkpoint import Record
from pipeline.params import Section

History = Sequence[Record]
Decay = Callable[[int, History], float]
"""The learning rate of an update without the warm-up."""


class LinearWarmUp(Section):
    """A linear rise from `start_lr` to the schedule's rate, over `updates` updates."""

    kind: Literal["linear"]
    updates: PositiveInt
    start_lr: PositiveFloat

    def rate(self, update: int, history: History, decayed: Decay) -> float | None:
        """Returns the rate of a warm-up's update; None once it is over."""
        if update >= self.updates:
            return None
        share = update / self.updates
        rise = decayed(self.updates, history) - self.start_lr
        return self.start_lr + share * rise


class ConstantWarmUp(Section):
    """`start_lr` for the first `updates` updates."""

    kind: Literal["constant"]
    updates: PositiveInt
    start_lr: PositiveFloat

    def rate(self, update: int, history: History, decayed: Decay) -> float | None:
        """Returns the rate of a warm-up's update; None once it is over."""
        return self.start_lr if update < self.updates else None


class ErrorWarmUp(Section):
    """`start_lr` until a line of the history has a training error below `train_error_pct`.

    Section 4.2, for 110 layers. The history has a line every `report_every_updates` updates, whose
    training error is the mean since the previous line.
    """

    kind: Literal["until_error"]
    train_error_pct: PositiveFloat
    start_lr: PositiveFloat

    def rate(self, update: int, history: History, decayed: Decay) -> float | None:
        """Returns the rate of a warm-up's update; None once it is over."""
        over = any(line.train_error_pct < self.train_error_pct for line in history)
        return None if over else self.start_lr


WarmUp = Annotated[LinearWarmUp | ConstantWarmUp | ErrorWarmUp, Field(discriminator="kind")]


class WarmedUp(Section):
    """A schedule that may begin with a warm-up; its kind determines the rates after that."""

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
        """Returns the learning rate of `update`; `history` must hold exactly the lines up to it."""
        if self.warmup is not None:
            rate = self.warmup.rate(update, history, self._decayed)
            if rate is not None:
                return rate
        return self._decayed(update, history)
