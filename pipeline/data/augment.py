"""Augmentation of whole batches: what happens is drawn, then done on the device that has the images.

The paper subtracts the mean image and divides by nothing: batch norm after the first layer takes the
scale away (docs/adr/0004). What is drawn for an image depends on the generator alone.
"""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import Arrays
from pipeline.data.resample import resample
from pipeline.params import Augmentation, PadCrop, RandomResizedCrop, ScaleCrop

ATTEMPTS = 10  # to draw a box that fits, as the Inception paper's implementations have it


class Augmenter(Protocol):
    """Two steps, so that a worker can draw for the whole batch and then do its share."""

    def draw(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns what happens to each of N images, float64 or int64 (N, ...).

        `sizes` int64 (N, 2): their height and width in pixels.
        """

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns uint8 images (N, H, W, C) as float32 (N, C, H', W'), channels last in memory.

        The result is valid until the next call: its memory is used again.
        """


def augmenter_of(recipe: Augmentation, arrays: Arrays, device: torch.device) -> Augmenter:
    """Returns the augmenter of a recipe, with the data set's mean and colours, on `device`."""
    mean, colour = arrays.mean.to(device), arrays.colour
    if isinstance(recipe, PadCrop):
        return PadCropper(recipe, mean)
    return BoxCropper(recipe, mean, colour)


class PadCropper:
    """Section 4.2: the mean is subtracted first, so that the padding is zero in network's units."""

    def __init__(self, recipe: PadCrop, mean: Tensor) -> None:
        self._recipe = recipe
        self._mean = mean
        self._height, self._width, self._channels = mean.shape
        self._count = -1

    def draw(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns row, column and mirror of each image, int64 (N, 3)."""
        count = len(sizes)
        offsets = 2 * self._recipe.pad_px + 1
        places = torch.randint(offsets, (count, 2), generator=generator)
        mirrors = torch.randint(2 if self._recipe.mirror else 1, (count, 1), generator=generator)
        return torch.cat([places, mirrors], dim=1)

    def _reserve(self, count: int) -> None:
        """Makes the buffers of a batch, once."""
        height, width, device = self._height, self._width, self._mean.device
        self._count = count
        self._pixels = torch.zeros((count * height * width + 1, self._channels), device=device)
        self._chosen = torch.empty((count * height * width, self._channels), device=device)
        self._first = torch.arange(count, device=device)[:, None, None] * (height * width)
        self._rows, self._columns = (torch.arange(n, device=device) for n in (height, width))

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns the crops at the images' own size."""
        height, width, pad = self._height, self._width, self._recipe.pad_px
        count = len(images)
        if count != self._count:
            self._reserve(count)
        body = self._pixels[:-1].view(count, height, width, self._channels)
        torch.sub(images, self._mean, out=body)  # the last row stays zero: all places outside
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


class BoxCropper:
    """A box of each image, resized to the crop: section 3.4's scales, or Inception's boxes.

    The mean image is resized to the crop and subtracted after it, as the authors' release does with
    its mean of 224x224 pixels.
    """

    def __init__(self, recipe: ScaleCrop | RandomResizedCrop, mean: Tensor, colour: Tensor) -> None:
        self._recipe = recipe
        self.size = recipe.crop_px, recipe.crop_px
        height, width, _ = mean.shape
        whole = torch.tensor([[0.0, 0.0, height, width]], dtype=torch.float64)
        straight = torch.zeros(1, dtype=torch.bool, device=mean.device)
        self._mean = resample(mean[None], whole.to(mean.device), straight, recipe.crop_px)[0]
        self._colour = colour

    def draw(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns top, left, height, width (pixels), mirror, and colour, float64 (N, 5 + C)."""
        count, sizes = len(sizes), sizes.double()
        if isinstance(self._recipe, ScaleCrop):
            boxes = self._scales(self._recipe, sizes, generator)
            colour_sd = self._recipe.colour_sd
        else:
            boxes = self._areas(self._recipe, sizes, generator)
            colour_sd = 0.0
        corners = (sizes - boxes) * torch.rand((count, 2), generator=generator, dtype=torch.float64)
        mirrors = torch.randint(2 if self._recipe.mirror else 1, (count, 1), generator=generator)
        channels = len(self._colour)
        shifts = torch.randn((count, channels), generator=generator, dtype=torch.float64)
        return torch.cat([corners, boxes, mirrors, shifts * colour_sd], dim=1)

    def _scales(self, recipe: ScaleCrop, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the crop's size in pixels of images whose shorter side is drawn."""
        span = recipe.shorter_side_px
        sides = torch.randint(span.low, span.high + 1, (len(sizes), 1), generator=generator)
        side = recipe.crop_px * sizes.min(dim=1, keepdim=True).values / sides.double()
        return side.expand(-1, 2)

    def _areas(
        self, recipe: RandomResizedCrop, sizes: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns height and width of the first of ten boxes that fits, or of the whole image."""
        shape = (len(sizes), ATTEMPTS)
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

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns the crops."""
        boxes, mirror = drawn[:, :4].to(images.device), drawn[:, 4].to(images.device) == 1
        crops = resample(images, boxes, mirror, self._recipe.crop_px)
        return self.colour(crops, self.shift(drawn).to(images.device))

    def shift(self, drawn: Tensor) -> Tensor:
        """Returns how far colours move along the principal components, float32 (N, C), not on a GPU.

        Loader processes call it, which cannot use their parent's GPU.
        """
        return drawn[:, 5:].float() @ self._colour.T

    def colour(self, crops: Tensor, shift: Tensor) -> Tensor:
        """Returns crops (N, H', W', C) of any type as `apply` returns them.

        They are less the mean, and moved by `shift` float32 (N, C). On a processor one thread does
        it: torch's other threads would wait for their next work by spinning, beside the decoders.
        """
        if crops.device.type != "cpu":
            return torch.sub(crops, self._mean).add_(shift[:, None, None]).permute(0, 3, 1, 2)
        out = np.subtract(crops.numpy(), self._mean.numpy(), dtype=np.float32)
        out += shift[:, None, None].numpy()
        return torch.from_numpy(out).permute(0, 3, 1, 2)
