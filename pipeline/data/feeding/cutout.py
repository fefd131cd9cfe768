"""Cutout: a square of each image becomes the mean (DeVries and Taylor, arXiv 1708.04552)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.data.feeding.composed import erase
from pipeline.params import Cutout


class SquareEraser:
    """Erases squares centered anywhere in the image; a square may extend beyond its edges."""

    def __init__(self, recipe: Cutout) -> None:
        self._side_px = recipe.side_px

    def draw(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Returns top, left, bottom and right of each image's square, int64 (count, 4)."""
        _, height, width = shape
        rows = torch.randint(height, (count, 1), generator=generator)
        columns = torch.randint(width, (count, 1), generator=generator)
        corner = torch.cat([rows, columns], dim=1) - self._side_px // 2
        return torch.cat([corner, corner + self._side_px], dim=1)

    def apply(self, images: Tensor, drawn: Tensor) -> None:
        """Erases the squares."""
        erase(images, drawn)
