"""Batches whose images are augmented more than once: by a crop, then by extras in the row's order."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.feeding.batches import Batches, mix


class Extra(Protocol):
    """An augmentation that is applied after the crop."""

    def draw(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Returns what is drawn for each of `count` images of shape (C, H, W): (count, ...)."""

    def apply(self, images: Tensor, drawn: Tensor) -> None:
        """Changes float32 images (N, C, H, W), from which the mean is subtracted already, in place."""


class Composed:
    """The batches of another `Batches`, with extras applied.

    What is drawn is a function of the seed, the update and the extra's position in the row. It is drawn
    for the whole batch and then split: neither interruptions nor the number of workers change it.
    """

    def __init__(
        self, batches: Batches, extras: Sequence[Extra], *, seed: int, global_batch_size: int,
        rank: int, workers: int,
    ) -> None:  # fmt: skip
        self._batches, self._extras = batches, extras
        self._seed, self._size = seed, global_batch_size
        count = global_batch_size // workers
        self._share = slice(rank * count, (rank + 1) * count)
        self.epoch_at = batches.epoch_at

    def between(self, first: int, end: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (update, batch)."""
        for update, (images, labels) in self._batches.between(first, end):
            for number, extra in enumerate(self._extras):
                generator = torch.Generator().manual_seed(mix(self._seed, 3, update, number))
                drawn = extra.draw(self._size, images.shape[1:], generator)[self._share]
                extra.apply(images, drawn.to(images.device))
            yield update, (images, labels)


def erase(images: Tensor, boxes: Tensor) -> None:
    """Sets a box (top, left, bottom, right; int64 (N, 4)) of each image to zero, which is the mean."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    inside = ((rows >= top) & (rows < bottom))[:, :, None]
    inside = inside & ((columns >= left) & (columns < right))[:, None, :]
    images.masked_fill_(inside[:, None], 0.0)
