"""Decodes a photograph, and resizes a box of it.

The content determines the format, not the file's name (one of ImageNet's JPEGs is a PNG); EXIF rotations
are not applied.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.feeding.pixels import to_rgb

MOST_PIXELS = Image.MAX_IMAGE_PIXELS = 100_000_000
# others are not photographs, and some start a program: Ghostscript for EPS
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")


def opened(content: bytes) -> Image.Image:
    """Returns the image, not decoded yet; Pillow's errors propagate, also for one of over 100 million pixels.

    Of an image up to twice as large Pillow only warns, and filters of warnings are of a whole process.
    """
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError(
            f"{image.width} x {image.height} pixels, wanted at most {MOST_PIXELS:,}"
        )
    return image


def size_of(size: tuple[int, int], shorter_side_px: int) -> tuple[int, int]:
    """Returns (width, height) of an image resized to a shorter side, rounded as torchvision does."""
    width, height = size
    if width <= height:
        return shorter_side_px, shorter_side_px * height // width
    return shorter_side_px * width // height, shorter_side_px


def cut(
    content: bytes, box: tuple[float, float, float, float], size: tuple[int, int], mirror: bool
) -> NDArray[np.uint8]:
    """Returns the box (top, left, height, width; pixels) resized to `size`, uint8 (height, width, 3).

    Pillow's antialiased bilinear filter gives the same as resizing the whole image and then cropping it.
    """
    top, left, height, width = box
    with opened(content) as image:
        pixels = to_rgb(image)
        pixels = pixels.resize(
            (size[1], size[0]), Image.Resampling.BILINEAR,
            box=(left, top, min(left + width, image.width), min(top + height, image.height)),
        )  # fmt: skip
    array: NDArray[np.uint8] = np.asarray(pixels)
    return array[:, ::-1] if mirror else array
