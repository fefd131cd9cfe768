"""A prepared data set in one safetensors file: split, mean, classes, digest.

A small one is there whole, as uint8 arrays; of a large one it is the index of the shards.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors
from torch import Tensor

from pipeline.data import account, cifar, digits, imagefolder
from pipeline.data.images import Images, Labelled
from pipeline.data.pixels import is_flat
from pipeline.data.shards import Photos, ShardFiles, shards_of
from pipeline.errors import DataError
from pipeline.files import write, write_json
from pipeline.params import Cifar10Data, DigitsData, Small

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, H, W, C), or in shards; `labels`, `ids` int64 (N,): place in the source."""

    images: Tensor | Photos
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def of_shards(self, numbers: range) -> "Split":
        """Returns the photographs of some neighbouring shards."""
        assert isinstance(self.images, Photos)
        places = self.images.places_in(numbers)
        photos = replace(
            self.images,
            sizes=self.images.sizes[places],
            shards=self.images.shards[numbers.start : numbers.stop],
        )
        return Split(photos, self.labels[places], self.ids[places])

    def share(self, rank: int, workers: int) -> "Split":
        """Returns one of several workers' neighbouring images, or shards, of which it may have none."""
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
class Arrays:
    """A data set ready for training.

    `mean` float32 (H, W, C) is the training images' per pixel (of photographs, their thumbnails').
    `colour` float32 (C, C): each column
    is a principal component of their pixels' colours, as long as the standard deviation along it.
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
        """The number of colour channels."""
        return self.mean.shape[-1]


def prepare(data: Small, archive: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns the arrays of a small set's `archive`, split as `data` says, and their account.

    The arrays are `<split>_<what>` and `mean`. The split depends on the seed alone; CIFAR-10's is the
    paper's 45k/5k when 5,000 are asked for. Raises DataError where a class has no training image left.
    """
    images = _read(data, archive)
    order = np.random.default_rng(data.split_seed).permutation(len(images.train.labels))
    test_count = data.test_images if isinstance(data, DigitsData) else 0
    if data.val_images + test_count >= len(order):
        raise DataError(
            f"params.yaml: data.val_images {data.val_images} and the test images leave nothing of "
            f"{len(order):,} images to train on: lower data.val_images"
        )
    test_ids, val_ids, train_ids = np.split(order, [test_count, test_count + data.val_images])
    parts = {"train": _take(images.train, train_ids), "val": _take(images.train, val_ids)}
    if images.test is None:
        parts["test"] = _take(images.train, test_ids)
    else:
        parts["test"] = _take(images.test, np.arange(len(images.test.labels)))
    arrays: dict[str, NDArray[Any]] = {
        f"{split}_{what}": array for split in SPLITS for what, array in parts[split].items()
    }
    labels = {split: arrays[f"{split}_labels"] for split in SPLITS}
    require_every_class(images.classes, labels["train"])
    found = account.of(
        classes=images.classes,
        labels=labels,
        contents={split: account.contents_of(arrays[f"{split}_images"]) for split in SPLITS},
        left=images.left,
        modes=images.modes,
        flat=sum(is_flat(image) for split in SPLITS for image in arrays[f"{split}_images"]),
    )
    # summed as integers, so that the mean is the same on every machine
    total = arrays["train_images"].sum(axis=0, dtype=np.int64)
    arrays["mean"] = (total / len(train_ids)).astype(np.float32)
    arrays["colour"] = _colours(arrays["train_images"])
    arrays["classes"] = np.frombuffer(json.dumps(images.classes).encode(), dtype=np.uint8)
    return arrays, found


def require_every_class(classes: Sequence[str], train_labels: NDArray[np.int64]) -> None:
    """Raises DataError where a class has no training image after val was cut."""
    there = set(train_labels.tolist())
    if lost := [name for number, name in enumerate(classes) if number not in there]:
        raise DataError(
            f"no training image of {', '.join(lost[:5])} is left after val was cut: lower "
            "data.val_images of params.yaml, take another data.split_seed, or add images"
        )


def _colours(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    channels = images.shape[-1]
    total, products = np.zeros(channels, np.int64), np.zeros((channels, channels), np.int64)
    for part in np.array_split(images, max(1, len(images) // 1000)):  # integers: exact anywhere
        pixels = part.reshape(-1, channels).astype(np.int64)
        total += pixels.sum(axis=0)
        products += pixels.T @ pixels
    return principal_colours(total, products, images.size // channels)


def principal_colours(
    total: NDArray[np.int64], products: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """Returns the principal components of the pixels' colours times their standard deviations.

    `total` (C,) and `products` (C, C) are sums over `count` pixels of their values and of their
    outer products. Krizhevsky et al. 2012, section 4.1, write eigenvalues where public
    implementations take their roots: on pixels of 0 to 255 only the roots are colours
    (docs/adr/0006).
    """
    covariance = products / count - np.outer(total / count, total / count)
    values, vectors = np.linalg.eigh(covariance)
    vectors *= np.where(vectors.sum(axis=0) < 0, -1, 1)  # a component's sign is a convention
    colours: NDArray[np.float32] = (vectors * np.sqrt(values.clip(min=0))).astype(np.float32)
    return colours


def _read(data: Small, archive: Path) -> Images:
    if isinstance(data, DigitsData):
        return digits.read(archive, data.image_size_px)
    if isinstance(data, Cifar10Data):
        return cifar.read(archive)
    return imagefolder.read(archive, data)


def _take(part: Labelled, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    ids = np.sort(ids).astype(np.int64)
    return {"images": part.images[ids], "labels": part.labels[ids], "ids": ids}


def content_digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Returns the sha256 of names, shapes, types and bytes of the arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
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


def load(path: Path, files: ShardFiles | None = None) -> Arrays:
    """Returns the prepared arrays, mapped into memory; raises DataError where there are none.

    Photographs are read from their shards by `files`; without it they can only be counted.
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
    return Arrays(
        **splits, mean=tensors["mean"], colour=tensors["colour"], classes=classes, digest=digest
    )


def _images(tensors: dict[str, Tensor], split: str, files: ShardFiles | None) -> Tensor | Photos:
    if (images := tensors.get(f"{split}_images")) is not None:
        return images
    table = shards_of(tensors[f"{split}_shards"])
    sizes = tensors[f"{split}_sizes"].long()
    return Photos(sizes, table, int(tensors["together"].item()), files)
