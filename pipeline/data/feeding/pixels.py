"""An image file's pixels as 8-bit RGB, whatever its mode; modes without a defined range are refused."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RANGELESS = {"I": "32-bit integers", "F": "floating-point numbers"}


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in RGB; 16-bit gray is scaled to 8 bits, transparency is dropped.

    Pillow's own conversion clips 16-bit values at 255, which leaves an all-white picture. Raises
    ValueError if the pixels have no defined range.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        deep: NDArray[np.uint16] = np.asarray(image).astype(np.uint16)
        return Image.fromarray(((deep.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")  # fmt: skip
    if what := RANGELESS.get(image.mode):
        raise ValueError(
            f"its pixels are {what} (mode {image.mode}), for which no values are agreed as black and "
            "white: convert it to 8 or 16 bits"
        )
    return image.convert("RGB")


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Tells whether all pixels (H, W, C) of an image are equal."""
    return bool((pixels == pixels[:1, :1]).all())
