"""What all schedules have: a warm-up, and a length in optimizer updates, counted from 0."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, assert_never

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.params import Section
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


class WarmedUp(Section):
    """A schedule that warms up; what comes then is its kind's."""

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
        match warmup := self.warmup:
            case None:
                return self._decayed(update, history)
            case ErrorWarmUp():
                if not any(line.train_error_pct < warmup.train_error_pct for line in history):
                    return warmup.start_lr
                return self._decayed(update, history)
            case ConstantWarmUp():
                if update < warmup.updates:
                    return warmup.start_lr
                return self._decayed(update, history)
            case LinearWarmUp():
                if update < warmup.updates:
                    share = update / warmup.updates
                    rise = self._decayed(warmup.updates, history) - warmup.start_lr
                    return warmup.start_lr + share * rise
                return self._decayed(update, history)
        assert_never(warmup)
