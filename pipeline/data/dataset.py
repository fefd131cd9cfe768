"""A prepared data set in one safetensors file: splits, mean, classes, digest.

For a small data set the file holds all images, as uint8 arrays; for a large one it is the index of the
shards.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors
from torch import Tensor

from pipeline.data.feeding.shards import Photos, ShardFiles, shards_of
from pipeline.errors import DataError
from pipeline.files import write, write_json

SPLITS = ("train", "val", "test")
PACKING = "packing"  # where the shards are stored, not what is in them: not in the digest


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, H, W, C), or photographs in shards; `labels` and `ids` int64 (N,).

    An id is an image's index in the part of the source (training or test) from which it was taken.
    """

    images: Tensor | Photos
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def of_shards(self, numbers: range) -> "Split":
        """Returns the photographs of a range of consecutive shards."""
        assert isinstance(self.images, Photos)
        places = self.images.places_in(numbers)
        photos = replace(
            self.images,
            sizes=self.images.sizes[places],
            shards=self.images.shards[numbers.start : numbers.stop],
        )
        return Split(photos, self.labels[places], self.ids[places])

    def share(self, rank: int, workers: int) -> "Split":
        """Returns the contiguous share of images, or of shards, of worker `rank`; it may be empty."""
        whole = self.images
        count = len(whole.shards) if isinstance(whole, Photos) else len(self)
        part = range(rank * count // workers, (rank + 1) * count // workers)
        if isinstance(whole, Photos):
            return self.of_shards(part)
        some = slice(part.start, part.stop)
        return Split(whole[some], self.labels[some], self.ids[some])

    def to(self, device: torch.device) -> "Split":
        """Returns the split with its tensors on `device`; photographs stay where they are."""
        images = self.images if isinstance(self.images, Photos) else self.images.to(device)
        return Split(images, self.labels.to(device), self.ids.to(device))


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    `mean` float32 (H, W, C) is the per-pixel mean of the training images (for photographs, of their
    thumbnails). `colour` float32 (C, C): each column is a principal component of their pixels' colors,
    as long as the standard deviation along it.
    """

    train: Split
    val: Split
    test: Split
    mean: Tensor
    colour: Tensor
    classes: tuple[str, ...]
    digest: str

    @property
    def channels(self) -> int:
        """The number of color channels."""
        return self.mean.shape[-1]


def content_digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Returns the sha256 of the arrays' names, types, shapes and bytes.

    `PACKING` is left out: the same content has the same digest, wherever its shards are stored.
    """
    sha = hashlib.sha256()
    for name in sorted(arrays.keys() - {PACKING}):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def save(arrays: dict[str, NDArray[Any]], path: Path, digest_path: Path, **more: Any) -> None:
    """Writes the arrays and, beside them, their digest, counts, classes and `more` as JSON."""
    digest = content_digest(arrays)
    write(path, save_tensors(arrays, metadata={"digest": digest}))
    summary = {
        "digest": digest,
        "images": {split: len(arrays[f"{split}_labels"]) for split in SPLITS},
        "image_shape": list(arrays["mean"].shape) if "train_images" in arrays else None,
        "classes": json.loads(arrays["classes"].tobytes()),
        **more,
    }
    write_json(digest_path, summary)


def load(path: Path, files: ShardFiles | None = None) -> Dataset:
    """Returns the prepared data set, memory-mapped; raises DataError if there is none.

    Photographs are read from their shards through `files`; without it they can only be counted.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            digest = file.metadata()["digest"]
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: no prepared data ({error}): run `dvc repro prepare`") from error
    splits = {
        split: Split(
            _images(tensors, split, files), tensors[f"{split}_labels"], tensors[f"{split}_ids"]
        )
        for split in SPLITS
    }
    classes = tuple(json.loads(tensors["classes"].numpy().tobytes()))
    return Dataset(
        **splits, mean=tensors["mean"], colour=tensors["colour"], classes=classes, digest=digest
    )


def _images(tensors: dict[str, Tensor], split: str, files: ShardFiles | None) -> Tensor | Photos:
    if (images := tensors.get(f"{split}_images")) is not None:
        return images
    packing = tensors.get(PACKING, torch.empty(0, dtype=torch.uint8)).numpy().tobytes().decode()
    table = shards_of(tensors[f"{split}_shards"], packing)
    sizes = tensors[f"{split}_sizes"].long()
    return Photos(sizes, table, int(tensors["together"].item()), files)
