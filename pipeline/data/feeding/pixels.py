"""An image file's pixels as 8-bit RGB, whatever its mode; what has no agreed range is refused."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RANGELESS = {"I": "32-bit integers", "F": "floating-point numbers"}


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in RGB; 16 bits of grey are scaled to 8, transparency is dropped.

    Pillow's own conversion cuts 16 bits off at 255: a picture of nothing but white. Raises ValueError
    for pixels without an agreed range.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        deep: NDArray[np.uint16] = np.asarray(image).astype(np.uint16)
        return Image.fromarray(((deep.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")  # fmt: skip
    if what := RANGELESS.get(image.mode):
        raise ValueError(
            f"its pixels are {what} (mode {image.mode}), of which nobody says what is black and what "
            "is white: convert it to 8 or 16 bits"
        )
    return image.convert("RGB")


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Tells whether all pixels (H, W, C) of an image are equal."""
    return bool((pixels == pixels[:1, :1]).all())
