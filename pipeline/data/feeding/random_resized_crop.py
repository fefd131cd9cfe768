"""Inception's augmentation: a crop of random area and aspect ratio, resized (Szegedy et al. 2015)."""

import math

import torch
from torch import Tensor

from pipeline.data.feeding.boxes import BoxCropper
from pipeline.params import RandomResizedCrop

ATTEMPTS = 10  # to draw a box that fits, as in implementations of the Inception paper


class AreaCropper(BoxCropper):
    """Crops a random fraction of an image's area."""

    def __init__(self, recipe: RandomResizedCrop, mean: Tensor, colour: Tensor) -> None:
        super().__init__(
            recipe.crop_px, mirror=recipe.mirror, colour_sd=0.0, mean=mean, colour=colour
        )
        self._recipe = recipe

    def boxes(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns height and width of the first of ten boxes that fits, else of the whole image."""
        recipe, shape = self._recipe, (len(sizes), ATTEMPTS)
        low, high = recipe.area_fraction.low, recipe.area_fraction.high
        share = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
        low, high = math.log(recipe.aspect_ratio.low), math.log(recipe.aspect_ratio.high)
        ratio = torch.rand(shape, generator=generator, dtype=torch.float64)
        ratio = (low + (high - low) * ratio).exp()
        area = share * sizes.prod(dim=1, keepdim=True)
        heights, widths = (area / ratio).sqrt(), (area * ratio).sqrt()
        fits = (heights <= sizes[:, :1]) & (widths <= sizes[:, 1:])
        first = fits.int().argmax(dim=1, keepdim=True)
        boxes = torch.cat([heights.gather(1, first), widths.gather(1, first)], dim=1)
        return torch.where(fits.any(dim=1, keepdim=True), boxes, sizes)
