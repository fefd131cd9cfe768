"""Per-pixel mean subtraction, random crops and mirror images, for a whole batch at once.

The paper subtracts the mean image before it pads (section 4.2), so padding is zero in the network's
units, and it divides by nothing: batch norm after the first layer takes the scale away.
"""

import torch
from torch import Tensor

from pipeline.params import Augmentation


class Augmenter:
    """Draws crops and mirror images of uint8 images (N, H, W, C) into float32 (N, C, H, W)."""

    def __init__(self, recipe: Augmentation, mean: Tensor) -> None:
        self._recipe = recipe
        self._mean = mean
        self._height, self._width, self._channels = mean.shape

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns what happens to each of `count` images, int64 (count, 3): row, column, mirror."""
        offsets = 2 * self._recipe.pad_px + 1
        places = torch.randint(offsets, (count, 2), generator=generator)
        mirrors = torch.randint(2 if self._recipe.mirror else 1, (count, 1), generator=generator)
        return torch.cat([places, mirrors], dim=1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns float32 (N, C, H, W), channels last in memory, augmented as `drawn` says."""
        height, width, pad = self._height, self._width, self._recipe.pad_px
        count, device = len(images), images.device
        pixels = torch.empty((count * height * width + 1, self._channels), device=device)
        body = pixels[:-1].view(count, height, width, self._channels)
        torch.sub(images, self._mean, out=body)
        pixels[-1] = 0.0  # every place outside of an image points here
        drawn = drawn.to(device)
        rows = torch.arange(height, device=device) + drawn[:, :1] - pad
        columns = torch.arange(width, device=device).expand(count, width)
        columns = torch.where(drawn[:, 2:] == 1, width - 1 - columns, columns) + drawn[:, 1:2] - pad
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
            :, None, :
        ]
        first = torch.arange(count, device=device)[:, None, None] * (height * width)
        places = first + rows[:, :, None] * width + columns[:, None, :]
        places = torch.where(inside, places, count * height * width)
        chosen = pixels.index_select(0, places.view(-1))
        return chosen.view(count, height, width, self._channels).permute(0, 3, 1, 2)
