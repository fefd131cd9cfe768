"""Augmentation of whole batches: what happens is drawn, then done on the device that has the images.

The paper subtracts the mean image and divides by nothing: batch norm after the first layer takes the
scale away (docs/adr/0004). What is drawn for an image depends on the generator alone. Each kind has a file of
its name, and `augmentations` lists them.
"""

from typing import Protocol

import torch
from torch import Tensor


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
