"""Random erasing: a random box of some images becomes the mean (Zhong et al., arXiv 1708.04896)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.data.feeding.composed import erase
from pipeline.params import Erasing


class BoxEraser:
    """Erases boxes of random area and aspect ratio that lie entirely within the image."""

    def __init__(self, recipe: Erasing) -> None:
        self._recipe = recipe

    def draw(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Returns top, left, bottom and right of each image's box, int64 (count, 4), or an empty box."""
        recipe, (_, height, width) = self._recipe, shape
        chance, share, ratio, row, column = torch.rand(
            (5, count), generator=generator, dtype=torch.float64
        )
        low, high = recipe.area_fraction.low, recipe.area_fraction.high
        area = (low + (high - low) * share) * height * width
        low, high = math.log(recipe.aspect_ratio.low), math.log(recipe.aspect_ratio.high)
        aspect = (low + (high - low) * ratio).exp()
        heights = (area * aspect).sqrt().round().clamp(max=height)
        widths = (area / aspect).sqrt().round().clamp(max=width)
        erased = chance < recipe.probability
        top = (row * (height - heights + 1)).floor()
        left = (column * (width - widths + 1)).floor()
        boxes = torch.stack([top, left, top + heights * erased, left + widths * erased], dim=1)
        return boxes.long()

    def apply(self, images: Tensor, drawn: Tensor) -> None:
        """Erases the boxes."""
        erase(images, drawn)
