"""Reads an archive that holds a folder per split and class: `<split>/<class>/<image>`."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.data.feeding.decoding import opened
from pipeline.data.feeding.pixels import to_rgb
from pipeline.data.sources.archives import members
from pipeline.data.sources.choosing import HEAD_BYTES, Choice
from pipeline.data.sources.images import Images, Labelled
from pipeline.errors import DataError
from pipeline.params import ImageFolderData


def read(path: Path, data: ImageFolderData) -> Images:
    """Returns the images, each resized by its shorter side and center-cropped.

    They are sorted by split, class and file name, whatever the archive's order. Raises DataError for an
    image that does not decode, fewer than two classes, or a class that one split lacks.
    """
    choice = Choice(str(path), (data.train_split, data.test_split))
    modes: Counter[str] = Counter()
    found = dict(_images(path, choice, modes, data.image_size_px))  # the last of each name counts
    choice.require_one_root()
    named = sorted(found.values(), key=lambda entry: entry[:3])
    classes = tuple(sorted({label for _, label, _, _ in named}))
    if len(classes) < 2:
        raise DataError(
            f"{path}: found {len(classes)} class(es) {list(classes)} under {data.train_split}/ and "
            f"{data.test_split}/, wanted two or more folders: check data.archive, "
            "data.train_split and data.test_split in params.yaml"
        )
    parts = {}
    for split in (data.train_split, data.test_split):
        entries = [(label, image) for place, label, _, image in named if place == split]
        if lacking := sorted(set(classes) - {label for label, _ in entries}):
            raise DataError(
                f"{path}: {split}/ has no image of {', '.join(lacking[:5])}, wanted every class in "
                "each split: add images or remove the class"
            )
        parts[split] = Labelled(
            np.stack([image for _, image in entries]),
            np.array([classes.index(label) for label, _ in entries], dtype=np.int64),
        )
    return Images(
        classes, parts[data.train_split], parts[data.test_split], choice.left, dict(modes)
    )


def _images(
    path: Path, choice: Choice, modes: Counter[str], size_px: int
) -> Iterable[tuple[str, tuple[str, str, str, NDArray[np.uint8]]]]:
    """Yields member and (split, class, name, pixels); two threads decode: Pillow releases the GIL."""

    def wanted() -> Iterable[tuple[str, str, str, str, bytes]]:
        for name, content in members(path):
            if taken := choice.take(name, partial(_head, content)):
                yield name, *taken, content

    def decoded(
        entry: tuple[str, str, str, str, bytes],
    ) -> tuple[str, str, tuple[str, str, str, NDArray[np.uint8]]]:
        member, split, label, name, content = entry
        mode, pixels = decode(content, size_px, f"{split}/{label}/{name}")
        return mode, member, (split, label, name, pixels)

    with ThreadPoolExecutor(2) as pool:
        for mode, member, image in pool.map(decoded, wanted()):
            modes[mode] += 1
            yield member, image


def _head(content: bytes) -> bytes:
    return content[:HEAD_BYTES]


def decode(content: bytes, size_px: int, name: str) -> tuple[str, NDArray[np.uint8]]:
    """Returns the file's pixel mode and uint8 RGB (size, size, 3), with its EXIF rotation applied."""
    try:
        with opened(content) as image:
            mode = image.mode
            upright = to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        # on damaged files Pillow's decoders raise nearly anything
        raise DataError(
            f"{name}: the image does not decode ({error}): replace or remove it in the archive"
        ) from error
    if upright.size != (size_px, size_px):
        upright = ImageOps.fit(upright, (size_px, size_px), Image.Resampling.BILINEAR)
    return mode, np.asarray(upright)
