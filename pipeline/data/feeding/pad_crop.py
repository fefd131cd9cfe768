"""Section 4.2's augmentation: zero padding, a random crop of the original size, random mirroring."""

import torch
from torch import Tensor

from pipeline.params import PadCrop


class PadCropper:
    """Section 4.2: the mean is subtracted first, so that the padding is zero as the network sees it."""

    def __init__(self, recipe: PadCrop, mean: Tensor) -> None:
        self._recipe = recipe
        self._mean = mean
        self._height, self._width, self._channels = mean.shape
        self._count = -1

    def draw(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns row and column of the crop, and mirror (0 or 1), for each image, int64 (N, 3)."""
        count = len(sizes)
        offsets = 2 * self._recipe.pad_px + 1
        places = torch.randint(offsets, (count, 2), generator=generator)
        mirrors = torch.randint(2 if self._recipe.mirror else 1, (count, 1), generator=generator)
        return torch.cat([places, mirrors], dim=1)

    def _reserve(self, count: int) -> None:
        """Allocates the buffers for batches of `count` images."""
        height, width, device = self._height, self._width, self._mean.device
        self._count = count
        self._pixels = torch.zeros((count * height * width + 1, self._channels), device=device)
        self._chosen = torch.empty((count * height * width, self._channels), device=device)
        self._first = torch.arange(count, device=device)[:, None, None] * (height * width)
        self._rows, self._columns = (torch.arange(n, device=device) for n in (height, width))

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns the crops, as large as the images."""
        height, width, pad = self._height, self._width, self._recipe.pad_px
        count = len(images)
        if count != self._count:
            self._reserve(count)
        body = self._pixels[:-1].view(count, height, width, self._channels)
        torch.sub(images, self._mean, out=body)  # the last row stays zero: every pixel outside
        drawn = drawn.to(images.device)
        rows = self._rows + drawn[:, :1] - pad
        columns = self._columns.expand(count, width)
        columns = torch.where(drawn[:, 2:] == 1, width - 1 - columns, columns) + drawn[:, 1:2] - pad
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
            :, None, :
        ]
        places = self._first + rows[:, :, None] * width + columns[:, None, :]
        places = torch.where(inside, places, count * height * width)
        torch.index_select(self._pixels, 0, places.view(-1), out=self._chosen)
        return self._chosen.view(count, height, width, self._channels).permute(0, 3, 1, 2)
