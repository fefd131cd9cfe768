"""Photographs of any size: how a file is examined, made smaller if asked for, and put into a shard.

Files are read as ImageNet is usually read: the content determines the format, not the name (one of
ImageNet's JPEGs is a PNG), gray and CMYK become RGB, and EXIF rotations are not applied
(torchvision's ImageFolder does all of this in the same way). Oddities are counted in `prepare`.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pipeline.data.feeding.decoding import opened, size_of
from pipeline.data.feeding.pixels import is_flat, to_rgb
from pipeline.errors import DataError

THUMBNAIL_PX = 64  # side of the mean image, which is smooth
ODDITIES = ("not_jpeg", "not_rgb", "rotated_by_exif", "undecodable", "all_pixels_equal")


@dataclass(frozen=True)
class Photo:
    """A photograph as it is stored in a shard.

    `thumbnail` uint8 (64, 64, 3) is its center square; `oddities` name what is unusual; `mode` is the
    file's pixel mode.
    """

    content: bytes
    height: int
    width: int
    thumbnail: NDArray[np.uint8]
    oddities: tuple[str, ...]
    mode: str


def examine(content: bytes, name: str, shorter_side_px: int | None, quality: int | None) -> Photo:
    """Returns the photograph and the facts about it; a large one is made smaller if asked for.

    Every byte is decoded, so that a truncated file is found here and not during training. Raises
    DataError, which names the image, if it does not decode.
    """
    try:
        with opened(content) as image:
            oddities, mode = _oddities(image), image.mode
            smaller = shorter_side_px is not None and min(image.size) > shorter_side_px
            if smaller:
                assert shorter_side_px is not None
                pixels = to_rgb(image)
                pixels = pixels.resize(
                    size_of(pixels.size, shorter_side_px), Image.Resampling.BILINEAR
                )
                out = io.BytesIO()
                pixels.save(out, "JPEG", quality=quality)
                content = out.getvalue()
            else:
                pixels = image
            width, height = pixels.size
            # a JPEG is decoded at a fraction of its size: enough for a thumbnail, and much faster
            pixels.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            thumbnail = _thumbnail(to_rgb(pixels))
    except MemoryError:
        raise
    except Exception as error:
        # on damaged files Pillow's decoders raise nearly anything
        raise DataError(
            f"{name}: the image does not decode ({error}): replace or remove it, or raise "
            "data.undecodable_images in params.yaml"
        ) from error
    if is_flat(thumbnail):
        oddities = (*oddities, "all_pixels_equal")
    return Photo(content, height, width, thumbnail, oddities, mode)


def _oddities(image: Image.Image) -> tuple[str, ...]:
    rotated = image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    found = (image.format != "JPEG", image.mode != "RGB", rotated)
    return tuple(name for name, is_so in zip(ODDITIES, found, strict=False) if is_so)


def _thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    width, height = image.size
    side = min(image.size)
    left, top = (width - side) / 2, (height - side) / 2
    small = image.resize(
        (THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )  # fmt: skip
    return np.asarray(small)
