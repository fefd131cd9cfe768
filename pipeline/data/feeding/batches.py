"""Which images a training update sees: a function of (seed, update) and nothing else.

The images are reshuffled for every pass over them, and the passes are concatenated; update u takes the
u-th block of `global_batch_size` images. So no image is dropped, every batch is full, a resumed training
needs no replay, and the global batches are the same for any number of workers.

For photographs, the shards are shuffled first, and then the images of as many shards at a time as fit
into a node's cache.
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

REMEMBERED = 3  # passes, and shuffled windows, kept in memory


class Order:
    """The order of a split's images over all passes; `counts` is the number of images in each shard.

    A window is a group of `together` shards whose images are shuffled together; a data set in memory is
    one shard. Windows are numbered consecutively through all passes.
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
        """Returns how many passes over the images `updates` updates make."""
        return updates * self._size / self._total

    def indices(self, update: int) -> Tensor:
        """Returns the indices in the split of the images of update `update`, int64 (global batch,)."""
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
        """Returns the window that contains the last image of an update's batch."""
        return self._window_at((update + 1) * self._size - 1)[0]

    def shards_in(self, window: int) -> list[int]:
        """Returns the shards of a window."""
        epoch, number = divmod(window, self._in_a_pass)
        shards: list[int] = self._pass(epoch)[0][number].tolist()
        return [shard for shard in shards if shard >= 0]

    def _window_at(self, position: int) -> tuple[int, int]:
        """Returns the window of a position, counted through all passes, and the offset in the window."""
        epoch, rest = divmod(position, self._total)
        ends = self._pass(epoch)[1]
        number = int(torch.searchsorted(ends, rest, right=True))
        before = int(ends[number - 1]) if number else 0
        return epoch * self._in_a_pass + number, rest - before

    def _pass(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns the shards of a pass's windows (windows, together), padded with -1, and their ends."""
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
        """Returns the indices in the split of a window's images, shuffled."""
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
    """A worker's share of every global batch, augmented, on the training device."""

    def epoch_at(self, updates: int) -> float:
        """Returns how many passes over the images `updates` updates make."""

    def between(self, first: int, end: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (update, (images float32 (N, C, H, W), labels int64 (N,))) from `first` to `end`.

        A batch's images are valid only until the next batch, which reuses their memory.
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
    assert global_batch_size % workers == 0  # ensured by pipeline.params
    count, split = global_batch_size // workers, split.to(device)
    share = slice(rank * count, (rank + 1) * count)
    if isinstance(split.images, Photos):
        assert isinstance(augmenter, BoxCropper)  # ensured by pipeline.params
        return StreamedBatches(split, augmenter, global_batch_size, seed, share)
    return MemoryBatches(split, augmenter, global_batch_size, seed, share)


class MemoryBatches:
    """The batches of a data set in memory, selected and augmented on the device that holds it."""

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
    """The batches of photographs in shards, whose boxes other processes decode."""

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
    """Returns what is drawn for the images of an update's global batch.

    It is drawn for the whole batch and then split, so that the number of workers changes nothing.
    """
    return augmenter.draw(sizes, torch.Generator().manual_seed(mix(seed, 1, update)))


def mix(*numbers: int) -> int:
    """Returns 63 well-mixed bits; neighboring seeds and updates give unrelated streams.

    Trailing zeros have no effect, so each use has its own second number: 0 for the order of images, 1
    for what an augmentation draws, 2 for the order of shards, 3 for what an extra draws.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
