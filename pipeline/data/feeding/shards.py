"""Shards of photographs: Arrow files, read in the middle without reading the rest (docs/adr/0010).

A shard is a table of `image` (the file's bytes), `label`, `id` and `name`, uncompressed, so that
pyarrow, pandas or polars read it too. Which bytes it must have stands in the data set's index.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

OPEN_SHARDS = 64  # of a process at once
ATTEMPTS = 5


@dataclass(frozen=True)
class Shard:
    """The key of the packing that it is of, and its sha256, size and number of images."""

    key: str
    sha256: str
    bytes: int
    images: int


class ShardFiles(Protocol):
    """Brings shards to this node: `pipeline.storage.shard_store`.

    `decoders` is how many processes decode what is in them; no bit depends on it.
    """

    decoders: int

    def path(self, shard: Shard) -> Path:
        """Returns the shard's file here, fetched and checked if need be."""

    def __hash__(self) -> int:
        """By identity: what one has opened is opened once."""


@dataclass(frozen=True)
class Photos:
    """The photographs of a split, in the order of their shards; `files` must be set to read them.

    `sizes` int64 (N, 2): height and width in pixels. `together` is how many shards are shuffled as
    one.
    """

    sizes: Tensor
    shards: tuple[Shard, ...]
    together: int
    files: ShardFiles | None = None

    def windows(self) -> list[range]:
        """Returns the shards in order, as many together as are used at the same time."""
        count = len(self.shards)
        return [range(n, min(n + self.together, count)) for n in range(0, count, self.together)]

    def places_in(self, shards: range) -> Tensor:
        """Returns the places of the images of neighbouring shards, int64 (n,)."""
        if not shards:
            return torch.arange(0)
        first = int(self._ends[shards[0]]) - self.shards[shards[0]].images
        return torch.arange(first, int(self._ends[shards[-1]]))

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([shard.images for shard in self.shards])

    def shard_of(self, place: int) -> int:
        """Returns which shard has the image at a place of the split."""
        return int(np.searchsorted(self._ends, place, side="right"))

    def content(self, place: int) -> bytes:
        """Returns the file of the image at a place of the split."""
        assert self.files is not None
        number = self.shard_of(place)
        shard = self.shards[number]
        return _opened(self.files, shard).image(place - int(self._ends[number]) + shard.images)


@dataclass(frozen=True)
class _Opened:
    """A shard's file, and where in it the images are: `ends` int64 (images + 1,) from `start`.

    Images are read and not mapped: what was read does not stay in this process's memory.
    """

    file: BinaryIO
    start: int
    ends: NDArray[np.int64]

    def image(self, number: int) -> bytes:
        first, end = int(self.ends[number]), int(self.ends[number + 1])
        return os.pread(self.file.fileno(), end - first, self.start + first)


@lru_cache(OPEN_SHARDS)
def _opened(files: ShardFiles, shard: Shard) -> _Opened:
    """Opens a shard once: it can be read on, whatever becomes of the file's name."""
    for attempt in range(ATTEMPTS):
        try:
            return _read(files.path(shard))
        except FileNotFoundError:  # another process needed its room just now
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _read(path: Path) -> _Opened:
    file = path.open("rb")
    with pa.memory_map(str(path)) as mapped:
        whole = mapped.read_buffer(mapped.size())
        images = pa.ipc.open_file(mapped).get_batch(0).column("image")
        _, ends, content = images.buffers()
        ends = np.frombuffer(ends, np.int32, len(images) + 1).astype(np.int64)
        return _Opened(file, content.address - whole.address, ends)


def shards_of(table: Tensor, key: str) -> tuple[Shard, ...]:
    """Returns the shards that `table_of` wrote, of the packing of a key; earlier tables have it themselves."""
    return tuple(Shard(**{"key": key, **entry}) for entry in json.loads(table.numpy().tobytes()))
