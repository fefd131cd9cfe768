"""Reads the handwritten digits that scikit-learn ships (UCI: 1,797 of 8x8 pixels, 17 gray levels)."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.sources.images import Images, Labelled
from pipeline.errors import DataError

SIDE_PX = 8
BRIGHTEST = 16


def read(path: Path, image_size_px: int) -> Images:
    """Returns the digits as gray images, resized bilinearly; the source has no test part."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: not scikit-learn's digits.csv.gz ({error})") from error
    pixels, labels = table[:, :-1], table[:, -1]
    small = np.round(pixels * (255 / BRIGHTEST)).astype(np.uint8).reshape(-1, SIDE_PX, SIDE_PX)
    size = (image_size_px, image_size_px)
    images = np.stack(
        [
            np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            for image in small
        ]
    )
    return Images(tuple("0123456789"), Labelled(images[..., None], labels), None)
