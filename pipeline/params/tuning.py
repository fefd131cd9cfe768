"""Section `tune`: searches for schedules."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.params.section import Range, RowName, Section


class SearchSpace(Section):
    """Learning-rate schedules; fractions are of `total_updates`, base_lr is drawn on a log scale."""

    base_lr: Range
    shapes: tuple[Literal["step", "cosine"], ...] = Field(min_length=1)
    warmup_fraction: Range
    first_drop_fraction: Range
    second_drop_fraction: Range

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.base_lr.low <= 0:
            raise ValueError("base_lr.low must be above 0: base_lr is drawn on a log scale")
        if self.second_drop_fraction.high >= 1:
            raise ValueError(
                "second_drop_fraction.high must be below 1: a drop at the last update has no effect"
            )
        if self.warmup_fraction.high >= 1:
            raise ValueError("warmup_fraction.high must be below 1")
        return self


class Tune(Section):
    """A search for a schedule by successive halving, judged on val alone; it writes `tuned/<name>.yaml`.

    `model` names the row whose network is searched. All `trials` train to `grace_updates`; one in
    `reduction_factor` of them goes on to that many times the updates, and so on up to `total_updates`. A
    search that takes longer than `time_limit_s` (seconds) stops undecided and goes on the next time.
    Neither this limit nor the number of trials changes the result of a trial.
    """

    model: RowName
    trials: PositiveInt
    total_updates: PositiveInt
    grace_updates: PositiveInt
    reduction_factor: Annotated[int, Field(ge=2)]
    report_every_updates: PositiveInt
    time_limit_s: PositiveFloat
    seed: NonNegativeInt
    space: SearchSpace

    @model_validator(mode="after")
    def _grace_within_total(self) -> Self:
        if self.grace_updates > self.total_updates:
            raise ValueError(
                f"grace_updates {self.grace_updates} is above total_updates {self.total_updates}"
            )
        if self.grace_updates % self.report_every_updates:
            raise ValueError(
                f"grace_updates {self.grace_updates} is not a multiple of report_every_updates "
                f"{self.report_every_updates}: trials are compared at reports"
            )
        return self
