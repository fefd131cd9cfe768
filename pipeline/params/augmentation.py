"""Section `augmentation` of a row: what is done to a training image."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from pipeline.params.section import Fraction, Range, Section, Span


class PadCrop(Section):
    """Section 4.2: zeros on each side, a random crop of the original size, a random mirror image."""

    kind: Literal["pad_crop"]
    pad_px: NonNegativeInt
    mirror: bool

    crop_px: ClassVar[int | None] = None  # images keep their size


class ScaleCrop(Section):
    """Section 3.4: a shorter side drawn from a range, a random crop, a random mirror, a color change.

    `colour_sd` is the standard deviation of AlexNet's principal-component color change, 0.1 in the
    paper's recipe; 0 turns it off.
    """

    kind: Literal["scale_crop"]
    shorter_side_px: Span
    crop_px: PositiveInt
    mirror: bool
    colour_sd: NonNegativeFloat

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop_px > self.shorter_side_px.low:
            raise ValueError(
                f"crop_px {self.crop_px} is above shorter_side_px.low {self.shorter_side_px.low}: "
                "the crop must fit into the smallest image; change one of the two"
            )
        return self


class RandomResizedCrop(Section):
    """Not the paper's: a crop of random area and aspect ratio, resized (Szegedy et al. 2015)."""

    kind: Literal["random_resized_crop"]
    crop_px: PositiveInt
    area_fraction: Range
    aspect_ratio: Range
    mirror: bool

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0 < self.area_fraction.low <= self.area_fraction.high <= 1:
            raise ValueError("area_fraction must lie above 0 and be at most 1")
        if self.aspect_ratio.low <= 0:
            raise ValueError("aspect_ratio.low must be above 0")
        return self


class Cutout(Section):
    """A square centered anywhere in the image is set to the mean (DeVries, Taylor, arXiv 1708.04552)."""

    kind: Literal["cutout"]
    side_px: PositiveInt


class Erasing(Section):
    """By chance, a random box of an image is set to the mean (Zhong et al., arXiv 1708.04896)."""

    kind: Literal["erasing"]
    probability: Fraction
    area_fraction: Range
    aspect_ratio: Range

    @model_validator(mode="after")
    def _boxes_are_possible(self) -> Self:
        if self.area_fraction.high > 1 or self.aspect_ratio.low <= 0:
            raise ValueError(
                f"area_fraction up to {self.area_fraction.high:g} and aspect_ratio from "
                f"{self.aspect_ratio.low:g}: wanted shares up to 1, and ratios above 0"
            )
        return self


Extra = Annotated[Cutout | Erasing, Field(discriminator="kind")]
Augmentation = Annotated[PadCrop | ScaleCrop | RandomResizedCrop, Field(discriminator="kind")]
