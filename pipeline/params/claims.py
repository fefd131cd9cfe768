"""Claims of a study's own, which the report judges as it judges the paper's."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, NonNegativeFloat, Tag, model_validator

from pipeline.params.section import RowName, Section

Score = Literal[
    "train_error_pct",
    "val_error_pct",
    "test_error_pct",
    "test_ten_crops_error_pct",
    "test_scales_error_pct",
]


class _Claim(Section):
    on: Score

    @property
    def rows(self) -> tuple[str, str]:
        """The names of the two rows; each stands for all that differ from it only in their seed."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _of_two(self) -> Self:
        if len(set(self.rows)) < 2:
            raise ValueError(f"{self.rows[0]} is compared with itself: name two rows")
        return self


class Better(_Claim):
    """The row `better` has an error more than `by` points below that of the row `than`."""

    better: RowName
    than: RowName
    by: NonNegativeFloat

    @property
    def rows(self) -> tuple[str, str]:
        """As above."""
        return self.better, self.than


class Equal(_Claim):
    """The errors of the rows `equal` and `to` are less than `within` points apart."""

    equal: RowName
    to: RowName
    within: Annotated[float, Field(gt=0)]

    @property
    def rows(self) -> tuple[str, str]:
        """As above."""
        return self.equal, self.to


def _kind(given: Any) -> str:
    return "equal" if "equal" in (given if isinstance(given, dict) else vars(given)) else "better"


OwnClaim = Annotated[
    Annotated[Better, Tag("better")] | Annotated[Equal, Tag("equal")], Discriminator(_kind)
]
