"""Reads an archive that holds a folder per split and class: `<split>/<class>/<image>`."""

import io
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.data.archives import members
from pipeline.data.images import Images, Labelled
from pipeline.errors import DataError
from pipeline.params import ImageFolderData

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff"}
Image.MAX_IMAGE_PIXELS = 100_000_000
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def read(path: Path, data: ImageFolderData) -> Images:
    """Returns the images, each resized by its shorter side and cropped in the middle.

    The order is by split, class and file name, whatever the archive's. Raises DataError for an
    image that does not decode, fewer than two classes, or a class that one split lacks.
    """
    named = sorted(_images(path, data), key=lambda entry: entry[:3])
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
    return Images(classes, parts[data.train_split], parts[data.test_split])


def _images(path: Path, data: ImageFolderData) -> Iterable[tuple[str, str, str, NDArray[np.uint8]]]:
    """Yields (split, class, name, pixels); two threads decode, since Pillow leaves the lock."""
    splits = {data.train_split, data.test_split}
    elsewhere: list[str] = []

    def wanted() -> Iterable[tuple[str, str, str, bytes]]:
        for name, content in members(path):
            pure = PurePosixPath(name)
            if pure.suffix.lower() not in EXTENSIONS or pure.name.startswith("._"):
                continue
            if len(pure.parts) < 3 or pure.parts[-3] not in splits:
                elsewhere.append(name)
                continue
            yield pure.parts[-3], pure.parts[-2], pure.name, content

    def decoded(entry: tuple[str, str, str, bytes]) -> tuple[str, str, str, NDArray[np.uint8]]:
        split, label, name, content = entry
        return split, label, name, decode(content, data.image_size_px, f"{split}/{label}/{name}")

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(decoded, wanted())
    if elsewhere:
        print(
            f"{path}: {len(elsewhere):,} images lie elsewhere than <split>/<class>/ and are not "
            f"read, such as {elsewhere[0]}"
        )


def decode(content: bytes, size_px: int, name: str) -> NDArray[np.uint8]:
    """Returns the image as uint8 RGB (size, size, 3), upright by its EXIF rotation."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:
        # on damaged files Pillow's decoders raise nearly anything
        raise DataError(
            f"{name}: the image does not decode ({error}): replace or remove it in the archive"
        ) from error
    if upright.size != (size_px, size_px):
        upright = ImageOps.fit(upright, (size_px, size_px), Image.Resampling.BILINEAR)
    return np.asarray(upright)
