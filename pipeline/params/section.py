"""What sections are made of: closed documents, named value types, intervals."""

import difflib
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

TUNED = "tuned"


class Section(BaseModel):
    """A frozen, closed part of the document; an unknown key is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                wanted = f'"{near[0]}"' if near else "one of " + ", ".join(cls.model_fields)
                raise PydanticCustomError(
                    "unknown_key", 'unknown key "{key}", wanted {wanted}: correct or remove it',
                    {"key": str(key), "wanted": wanted},
                )  # fmt: skip
        return given


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("wanted 64 lower-case hexadecimal digits, as `sha256sum FILE` prints them")
    return value


def _row_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", value):
        raise ValueError("wanted a name of lower-case letters, digits, - and _")
    return value


def _schedule_file(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".yaml":
        raise ValueError("wanted a .yaml file inside the study, such as schedules/paper-cifar.yaml")
    if path.parts[0] == TUNED and len(path.parts) != 2:
        raise ValueError(f"wanted {TUNED}/<name of a search in tune>.yaml")
    return value


Sha256 = Annotated[str, AfterValidator(_sha256)]
RowName = Annotated[str, AfterValidator(_row_name)]
ScheduleFile = Annotated[str, AfterValidator(_schedule_file)]
Shortcut = Literal["none", "A", "B", "C"]
Precision = Literal["float32", "tf32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class _Interval(Section):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: swap them")
        return self


class Range(_Interval):
    """A closed interval."""

    low: NonNegativeFloat
    high: NonNegativeFloat


class Span(_Interval):
    """A closed interval of whole numbers."""

    low: PositiveInt
    high: PositiveInt


class Elastic(Span):
    """As many workers as there is room for; their number may change during a training.

    Batch-norm statistics are computed over a worker's share, so such a training gives up the guarantee
    of identical bits.
    """

    elastic: Literal[True]
