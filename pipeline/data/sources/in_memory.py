"""Prepares a small data set entirely in memory: reads, splits and describes it, as uint8 arrays."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import SPLITS
from pipeline.data.feeding.pixels import is_flat
from pipeline.data.sources import account, cifar10, digits, folders
from pipeline.data.sources.images import Images, Labelled
from pipeline.errors import DataError
from pipeline.params import Cifar10Data, DigitsData, ImageFolderData, Small


def prepare(data: Small, archive: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns the arrays of a small set's `archive`, split as `data` says, and their account.

    The arrays are `<split>_<what>`, `mean`, `colour` and `classes`. The split depends on the seed alone;
    with 5,000 validation images CIFAR-10's is the paper's 45k/5k. Raises DataError if no images are left
    for training, or none of a class.
    """
    images = _read(data, archive)
    order = np.random.default_rng(data.split_seed).permutation(len(images.train.labels))
    test_count = data.test_images if isinstance(data, DigitsData) else 0
    if data.val_images + test_count >= len(order):
        raise DataError(
            f"params.yaml: data.val_images {data.val_images}{' with test_images' if test_count else ''} "
            f"uses up all {len(order):,} images; none are left for training: lower data.val_images"
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
    """Raises DataError if a class has no training image left after the validation images are taken."""
    there = set(train_labels.tolist())
    if lost := [name for number, name in enumerate(classes) if number not in there]:
        raise DataError(
            f"no training image of {', '.join(lost[:5])} is left after the validation images are taken: "
            "lower data.val_images in params.yaml, choose another data.split_seed, or add images"
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
    """Returns the principal components of the pixels' colors times their standard deviations.

    `total` (C,) and `products` (C, C) are sums over `count` pixels of their values and of their
    outer products. Krizhevsky et al. 2012, section 4.1, write eigenvalues where public implementations
    use their square roots: for pixels from 0 to 255 only the roots are in units of color
    (docs/adr/0006).
    """
    covariance = products / count - np.outer(total / count, total / count)
    values, vectors = np.linalg.eigh(covariance)
    vectors *= np.where(vectors.sum(axis=0) < 0, -1, 1)  # a component's sign is a convention
    colours: NDArray[np.float32] = (vectors * np.sqrt(values.clip(min=0))).astype(np.float32)
    return colours


def _read(data: Small, archive: Path) -> Images:
    match data:
        case DigitsData():
            return digits.read(archive, data.image_size_px)
        case Cifar10Data():
            return cifar10.read(archive)
        case ImageFolderData():
            return folders.read(archive, data)
    assert_never(data)


def _take(part: Labelled, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    ids = np.sort(ids).astype(np.int64)
    return {"images": part.images[ids], "labels": part.labels[ids], "ids": ids}
