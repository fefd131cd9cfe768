"""Section 3.4's augmentation: random shorter side, random crop, random mirroring, random color shift."""

import torch
from torch import Tensor

from pipeline.data.feeding.boxes import BoxCropper
from pipeline.params import ScaleCrop


class ScaleCropper(BoxCropper):
    """Crops an image whose shorter side is drawn at random."""

    def __init__(self, recipe: ScaleCrop, mean: Tensor, colour: Tensor) -> None:
        super().__init__(
            recipe.crop_px, mirror=recipe.mirror, colour_sd=recipe.colour_sd, mean=mean,
            colour=colour,
        )  # fmt: skip
        self._span = recipe.shorter_side_px

    def boxes(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns height and width of each crop, in pixels of the image at its original size."""
        low, high = self._span.low, self._span.high
        sides = torch.randint(low, high + 1, (len(sizes), 1), generator=generator)
        side = self._crop_px * sizes.min(dim=1, keepdim=True).values / sides.double()
        return side.expand(-1, 2)
