"""Which images a training update sees: a function of (seed, update) and nothing else.

The images are shuffled anew for every pass over them, and the passes are laid end to end; update u
takes the u-th piece of `global_batch_size` images. So no image is dropped, every batch is full, a
resumed training needs no replay, and any number of workers sees the same global batches.

Photographs are shuffled shard by shard first, and then among as many shards as fit a node's cache.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Split
from pipeline.data.feeding.augment import Augmenter
from pipeline.data.feeding.boxes import BoxCropper
from pipeline.data.feeding.loader import Request, answers, photos_of
from pipeline.data.feeding.shards import Photos

REMEMBERED = 3  # shuffled windows


class Order:
    """The order of a split's images over all passes: of `counts` images in each shard.

    A window is `together` shards that are shuffled as one; a set in memory is one shard. Windows are
    counted through all passes.
    """

    def __init__(self, counts: Sequence[int], together: int, size: int, seed: int) -> None:
        self._counts, self._together = torch.tensor(counts), together
        self._starts = self._counts.cumsum(0) - self._counts
        self._size, self._seed = size, seed
        self._total = int(self._counts.sum())
        self._in_a_pass = -(-len(counts) // together)
        self._passes: dict[int, tuple[Tensor, Tensor]] = {}
        self._shuffled: dict[int, Tensor] = {}

    def epoch_at(self, updates: int) -> float:
        """Returns how many passes over the images `updates` updates are."""
        return updates * self._size / self._total

    def indices(self, update: int) -> Tensor:
        """Returns the places in the split of the global batch of `update`, int64 (batch,)."""
        first, last = update * self._size, (update + 1) * self._size
        pieces = []
        while first < last:
            window, start = self._window_at(first)
            places = self._places(window)
            piece = places[start : start + last - first]
            pieces.append(piece)
            first += len(piece)
        return torch.cat(pieces)

    def window_of(self, update: int) -> int:
        """Returns the window of the last image of an update's batch."""
        return self._window_at((update + 1) * self._size - 1)[0]

    def shards_in(self, window: int) -> list[int]:
        """Returns the shards of a window."""
        epoch, number = divmod(window, self._in_a_pass)
        shards: list[int] = self._pass(epoch)[0][number].tolist()
        return [shard for shard in shards if shard >= 0]

    def _window_at(self, position: int) -> tuple[int, int]:
        """Returns the window that has a position of all passes, and the place in it."""
        epoch, rest = divmod(position, self._total)
        ends = self._pass(epoch)[1]
        number = int(torch.searchsorted(ends, rest, right=True))
        before = int(ends[number - 1]) if number else 0
        return epoch * self._in_a_pass + number, rest - before

    def _pass(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns the shards of a pass's windows (windows, together), -1 for none, and their ends."""
        if epoch not in self._passes:
            _forget(self._passes)
            generator = torch.Generator().manual_seed(mix(self._seed, 2, epoch))
            order = torch.randperm(len(self._counts), generator=generator)
            lacking = self._in_a_pass * self._together - len(order)
            shards = torch.cat([order, torch.full((lacking,), -1)]).view(-1, self._together)
            images = torch.where(shards >= 0, self._counts[shards.clamp_min(0)], 0)
            self._passes[epoch] = shards, images.sum(dim=1).cumsum(0)
        return self._passes[epoch]

    def _places(self, window: int) -> Tensor:
        """Returns the places in the split of a window's images, shuffled."""
        if window not in self._shuffled:
            _forget(self._shuffled)
            epoch, number = divmod(window, self._in_a_pass)
            places = torch.cat(
                [
                    torch.arange(int(self._counts[shard])) + self._starts[shard]
                    for shard in self.shards_in(window)
                ]
            )
            generator = torch.Generator().manual_seed(mix(self._seed, 0, epoch, number))
            self._shuffled[window] = places[torch.randperm(len(places), generator=generator)]
        return self._shuffled[window]


def _forget(remembered: dict[int, Any]) -> None:
    while len(remembered) >= REMEMBERED:
        remembered.pop(next(iter(remembered)))


class Batches(Protocol):
    """A worker's share of every global batch, augmented, on the device that trains."""

    def epoch_at(self, updates: int) -> float:
        """Returns how many passes over the images `updates` updates are."""

    def between(self, first: int, end: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (update, (images float32 (N, C, H, W), labels int64 (N,))) from `first` to `end`.

        A batch's images are valid until the next one: their memory is used again.
        """


def batches_of(
    split: Split,
    augmenter: Augmenter,
    *,
    global_batch_size: int,
    seed: int,
    device: torch.device,
    rank: int = 0,
    workers: int = 1,
) -> Batches:
    """Returns the batches of a split, in memory or in shards."""
    assert global_batch_size % workers == 0  # pipeline.params refuses it
    count, split = global_batch_size // workers, split.to(device)
    share = slice(rank * count, (rank + 1) * count)
    if isinstance(split.images, Photos):
        assert isinstance(augmenter, BoxCropper)  # pipeline.params refuses another
        return StreamedBatches(split, augmenter, global_batch_size, seed, share)
    return MemoryBatches(split, augmenter, global_batch_size, seed, share)


class MemoryBatches:
    """The batches of a set in memory: chosen and augmented on the device that has it."""

    def __init__(
        self, split: Split, augmenter: Augmenter, size: int, seed: int, share: slice
    ) -> None:
        assert isinstance(split.images, Tensor)
        self._images, self._labels = split.images, split.labels
        self._sizes = torch.tensor([split.images.shape[1:3]]).expand(size, 2)
        self._augmenter, self._seed, self._share = augmenter, seed, share
        self.order = Order([len(split)], 1, size, seed)
        self.epoch_at = self.order.epoch_at

    def between(self, first: int, end: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (update, batch)."""
        for update in range(first, end):
            yield update, self.batch(update)

    def batch(self, update: int) -> tuple[Tensor, Tensor]:
        """Returns this worker's share of the batch of `update`, counted from 0."""
        places = self.order.indices(update)[self._share].to(self._images.device)
        drawn = drawn_at(self._augmenter, self._sizes, self._seed, update)[self._share]
        return self._augmenter.apply(self._images[places], drawn), self._labels[places]


class StreamedBatches:
    """The batches of photographs in shards: boxes of them are decoded by other processes."""

    def __init__(
        self, split: Split, augmenter: BoxCropper, size: int, seed: int, share: slice
    ) -> None:
        self._photos, self._labels = photos_of(split), split.labels
        self._augmenter, self._seed, self._share = augmenter, seed, share
        self.order = Order(
            [shard.images for shard in self._photos.shards], self._photos.together, size, seed
        )
        self.epoch_at = self.order.epoch_at

    def between(self, first: int, end: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (update, batch)."""
        updates, device = range(first, end), self._labels.device
        answered = answers(self._photos, self._request, updates, self.order, device)
        for update, (images, places, shift) in zip(updates, answered, strict=True):
            labels = self._labels[places.to(device)]
            yield update, (self._augmenter.colour(images, shift), labels)

    def _request(self, update: int) -> Request:
        places = self.order.indices(update)
        drawn = drawn_at(self._augmenter, self._photos.sizes[places], self._seed, update)
        places, drawn = places[self._share], drawn[self._share]
        boxes, mirror, shift = drawn[:, :4], drawn[:, 4] == 1, self._augmenter.shift(drawn)
        return Request(places, boxes, mirror, shift, self._augmenter.size)


def drawn_at(augmenter: Augmenter, sizes: Tensor, seed: int, update: int) -> Tensor:
    """Returns what happens to the images of an update's whole batch.

    The whole batch is drawn and then shared, so that the number of workers changes nothing.
    """
    return augmenter.draw(sizes, torch.Generator().manual_seed(mix(seed, 1, update)))


def mix(*numbers: int) -> int:
    """Returns 63 well-mixed bits; neighbouring seeds and updates give unrelated streams.

    Zeros at the end count for nothing, so that uses have a second number each: 0 the order, 1 what an
    augmentation draws, 2 the order of shards, 3 what an extra draws.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
