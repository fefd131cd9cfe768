"""An account of a prepared set: images by split and class, files left out and why, and oddities.

`prepare` prints it; it is kept in Git as `data/account.json` and shown on the page. Whatever would make
a study's results wrong stops the study; the rest is only reported.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sources.choosing import Left
from pipeline.errors import DataError

FEW = 5  # a class with fewer training images is reported
MOST_CLASSES = 100  # whose counts are listed
SHOWN = 5


def of(
    *,
    classes: Sequence[str],
    labels: Mapping[str, NDArray[np.int64]],
    contents: Mapping[str, NDArray[np.uint64]],
    left: Mapping[str, Left],
    modes: Mapping[str, int],
    flat: int,
) -> dict[str, Any]:
    """Returns the account; `contents` has, by split, a digest of each image's content (N,)."""
    counts = {
        split: np.bincount(some, minlength=len(classes)).tolist() for split, some in labels.items()
    }
    train, val, test = (contents[split] for split in ("train", "val", "test"))
    few = [name for name, count in zip(classes, counts["train"], strict=True) if count < FEW]
    return {
        "images": {split: len(some) for split, some in labels.items()},
        "by_class": [  # a list, so that `dvc metrics` and `dvc exp show` have no column for each
            {"class": name, **{split: counts[split][number] for split in counts}}
            for number, name in enumerate(classes[:MOST_CLASSES])
        ],
        "classes": len(classes),
        "classes_with_few_training_images": few[:SHOWN],
        "classes_with_few_training_images_count": len(few),
        "left": {why: {"files": some.files, "example": some.example} for why, some in left.items()},
        "modes": dict(modes),
        "all_pixels_equal": flat,
        "duplicates": {
            "within_train": int(len(train) - len(np.unique(train))),
            "within_test": int(len(test) - len(np.unique(test))),
            "val_in_train": int(np.isin(val, train).sum()),
            "test_in_train": int(np.isin(test, train).sum()),
            "test_in_val": int(np.isin(test, val).sum()),
        },
    }


def said(account: Mapping[str, Any]) -> list[str]:
    """Returns the lines that a person should read; none if nothing is odd."""
    lines = [
        f"left out: {some['files']:,} {why}, such as {some['example']}"
        for why, some in account["left"].items()
    ]
    modes = {mode: count for mode, count in account["modes"].items() if mode != "RGB"}
    if modes:
        shown = ", ".join(f"{count:,} {mode}" for mode, count in sorted(modes.items()))
        lines.append(f"pixel modes other than RGB: {shown}")
    if account["all_pixels_equal"]:
        lines.append(f"{account['all_pixels_equal']:,} images whose pixels are all equal")
    names = {
        "within_train": "training images are copies of another training image",
        "within_test": "test images are copies of another test image",
        "val_in_train": "validation images are training images too",
        "test_in_train": "test images are training images too",
        "test_in_val": "test images are validation images too",
    }
    lines += [
        f"duplicates: {account['duplicates'][name]:,} {text}"
        for name, text in names.items()
        if account["duplicates"][name]
    ]
    if few := account["classes_with_few_training_images_count"]:
        shown = ", ".join(account["classes_with_few_training_images"])
        lines.append(f"{few} classes have fewer than {FEW} training images: {shown}")
    return lines


def require_sound(account: Mapping[str, Any], accepted_pct: float) -> None:
    """Raises DataError if more of a split's images are training images than params.yaml accepts."""
    for split in ("val", "test"):
        count, both = account["images"][split], account["duplicates"][f"{split}_in_train"]
        if both > accepted_pct / 100 * count:
            raise DataError(
                f"data: {both:,} of {count:,} {split} images are training images too, by their content: "
                f"{100 * both / count:.1f} %, but data.duplicates_pct in params.yaml accepts only "
                f"{accepted_pct:g} %: errors on {split} would mean little; remove them from the source, "
                "or raise data.duplicates_pct if you know what they do to the results"
            )


def contents_of(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Returns a digest of each image's pixels, uint64 (N,), of images uint8 (N, H, W, C)."""
    return np.array([content_of(image.tobytes()) for image in images], dtype=np.uint64)


def content_of(content: bytes) -> int:
    """Returns the first 64 bits of the sha256 of bytes."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
