"""Augmentation of whole batches: drawn first, then applied on the device that holds the images.

The paper subtracts the mean image and does not rescale: batch norm after the first layer removes the
scale (docs/adr/0004). What is drawn for an image depends on the generator and the image's size alone.
Each kind has a file named after it, and `augmentations` lists the kinds.
"""

from typing import Protocol

import torch
from torch import Tensor


class Augmenter(Protocol):
    """Works in two steps, so that a worker can draw for the whole batch and then apply its share."""

    def draw(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns what is drawn for each of N images, float64 or int64 (N, ...).

        `sizes` int64 (N, 2): their height and width in pixels.
        """

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns uint8 images (N, H, W, C) as float32 (N, C, H', W'), channels last in memory.

        The result is valid only until the next call, which reuses its memory.
        """
