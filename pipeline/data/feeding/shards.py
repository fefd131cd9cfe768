"""Shards of photographs: Arrow files, of which any image is read without the rest (docs/adr/0010).

A shard is an uncompressed table of `image` (the file's bytes), `label`, `id` and `name`, which pyarrow,
pandas or polars can read too. The data set's index holds the sha256 that its bytes must have.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OPEN_SHARDS = 64  # that a process keeps open at once
ATTEMPTS = 5


@dataclass(frozen=True)
class Shard:
    """A shard: the key of its packing, its sha256, its size in bytes and its number of images."""

    key: str
    sha256: str
    bytes: int
    images: int


class ShardFiles(Protocol):
    """Fetches shards to this node; implemented by `pipeline.storage.shard_store`.

    `decoders` is the number of processes that decode their images; no bit of the result depends on it.
    """

    decoders: int

    def path(self, shard: Shard) -> Path:
        """Returns the shard's file on this node, fetched and checked if necessary."""

    def __hash__(self) -> int:
        """Hashes by identity, so that one object's shards are opened only once."""


@dataclass(frozen=True)
class Photos:
    """The photographs of a split, in the order of their shards; `files` must be set to read them.

    `sizes` int64 (N, 2): height and width in pixels. `together` is how many shards are shuffled
    together.
    """

    sizes: Tensor
    shards: tuple[Shard, ...]
    together: int
    files: ShardFiles | None = None

    def windows(self) -> list[range]:
        """Returns the shards' numbers in order, in groups that are used at the same time."""
        count = len(self.shards)
        return [range(n, min(n + self.together, count)) for n in range(0, count, self.together)]

    def places_in(self, shards: range) -> Tensor:
        """Returns the indices in the split of the images of consecutive shards, int64 (n,)."""
        if not shards:
            return torch.arange(0)
        first = int(self._ends[shards[0]]) - self.shards[shards[0]].images
        return torch.arange(first, int(self._ends[shards[-1]]))

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([shard.images for shard in self.shards])

    def shard_of(self, place: int) -> int:
        """Returns the number of the shard that holds the image at an index of the split."""
        return int(np.searchsorted(self._ends, place, side="right"))

    def content(self, place: int) -> bytes:
        """Returns the bytes of the file of the image at an index of the split."""
        assert self.files is not None
        number = self.shard_of(place)
        shard = self.shards[number]
        return _opened(self.files, shard).image(place - int(self._ends[number]) + shard.images)


@dataclass(frozen=True)
class _Opened:
    """An open shard, and where its images are: `ends` int64 (images + 1,), offsets from `start`.

    Images are read, not memory-mapped, so that they do not stay in this process's memory.
    """

    file: BinaryIO
    start: int
    ends: NDArray[np.int64]

    def image(self, number: int) -> bytes:
        first, end = int(self.ends[number]), int(self.ends[number + 1])
        return os.pread(self.file.fileno(), end - first, self.start + first)


@lru_cache(OPEN_SHARDS)
def _opened(files: ShardFiles, shard: Shard) -> _Opened:
    """Opens a shard once; it stays readable even if its file is deleted."""
    for attempt in range(ATTEMPTS):
        try:
            return _read(files.path(shard))
        except FileNotFoundError:  # another process has just deleted it to make room
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _read(path: Path) -> _Opened:
    import pyarrow as pa  # only photographs need it

    file = path.open("rb")
    with pa.memory_map(str(path)) as mapped:
        whole = mapped.read_buffer(mapped.size())
        images = pa.ipc.open_file(mapped).get_batch(0).column("image")
        _, ends, content = images.buffers()
        ends = np.frombuffer(ends, np.int32, len(images) + 1).astype(np.int64)
        return _Opened(file, content.address - whole.address, ends)


def shards_of(table: Tensor, key: str) -> tuple[Shard, ...]:
    """Returns the shards that `table_of` wrote, of packing `key` unless an older table names its own."""
    return tuple(Shard(**{"key": key, **entry}) for entry in json.loads(table.numpy().tobytes()))
