"""Which images a training update sees: a function of (seed, update) and nothing else.

The images are shuffled anew for every pass over them, and the passes are laid end to end; update u
takes the u-th piece of `global_batch_size` images. So no image is dropped, every batch is full, a
resumed training needs no replay, and any number of workers sees the same global batches.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import Split
from pipeline.data.augment import Augmenter


class Batches:
    """A worker's share of every global batch, augmented, on the device where the data are."""

    def __init__(
        self,
        split: Split,
        augmenter: Augmenter,
        *,
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        assert global_batch_size % workers == 0  # pipeline.params refuses it
        self._split = split
        self._augmenter = augmenter
        self._size = global_batch_size
        self._seed = seed
        share = global_batch_size // workers
        self._share = slice(rank * share, (rank + 1) * share)
        self._shuffled: dict[int, Tensor] = {}

    def epoch_at(self, updates: int) -> float:
        """Returns how many passes over the images `updates` updates are."""
        return updates * self._size / len(self._split)

    def between(self, first: int, end: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (update, (images float32 (N, C, H, W), labels int64 (N,))) from `first` to `end`.

        A batch's images are valid until the next one: their memory is used again.
        """
        for update in range(first, end):
            yield update, self.batch(update)

    def batch(self, update: int) -> tuple[Tensor, Tensor]:
        """Returns this worker's share of the batch of `update`, counted from 0."""
        ids = self.indices(update)[self._share].to(self._split.images.device)
        # the whole batch is drawn and then shared, so that the number of workers changes nothing
        generator = torch.Generator().manual_seed(_mix(self._seed, 1, update))
        drawn = self._augmenter.draw(self._size, generator)[self._share]
        images = self._augmenter.apply(self._split.images[ids], drawn)
        return images, self._split.labels[ids]

    def indices(self, update: int) -> Tensor:
        """Returns the places in the split of the global batch of `update`, int64 (batch,)."""
        count = len(self._split)
        first, last = update * self._size, (update + 1) * self._size
        pieces = []
        while first < last:
            epoch, start = divmod(first, count)
            stop = min(count, start + last - first)
            pieces.append(self._permutation(epoch)[start:stop])
            first += stop - start
        return torch.cat(pieces)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._shuffled:
            generator = torch.Generator().manual_seed(_mix(self._seed, 0, epoch))
            while len(self._shuffled) >= 2:
                self._shuffled.pop(next(iter(self._shuffled)))
            self._shuffled[epoch] = torch.randperm(len(self._split), generator=generator)
        return self._shuffled[epoch]


def _mix(*numbers: int) -> int:
    """Returns 63 well-mixed bits; neighbouring seeds and updates give unrelated streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
