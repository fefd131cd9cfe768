"""Small pictures of test images for the page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from pipeline.storage.objects import Storage

SIDE_PX = 72


def thumbnails(arrays: Path, places: Sequence[int], storage: Storage | None) -> list[str]:
    """Returns the test images at some places as data: addresses, at most 72 pixels wide and high.

    `storage` is where the shards of photographs are; None for images in memory, which are shown pixel by pixel.
    """
    if not places:
        return []
    if storage is None:
        with safe_open(arrays, framework="numpy") as file:
            images = file.get_slice("test_images")
            return [_png(images[place : place + 1][0]) for place in places]
    # here, so that a study of small images waits for no torch
    from pipeline.data import dataset
    from pipeline.data.feeding.shards import Photos
    from pipeline.storage.shard_store import ShardCache

    photos = dataset.load(arrays, ShardCache(storage, 1)).test.images
    assert isinstance(photos, Photos)
    return [_jpeg(photos.content(place)) for place in places]


def _png(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    out = io.BytesIO()
    image.save(out, "PNG")
    return _address(out.getvalue(), "png")


def _jpeg(content: bytes) -> str:
    from pipeline.data.feeding.decoding import opened
    from pipeline.data.feeding.pixels import to_rgb

    out = io.BytesIO()
    with opened(content) as image:
        small = to_rgb(image)
        small.thumbnail((SIDE_PX * 2, SIDE_PX * 2))
        small.save(out, "JPEG", quality=80)
    return _address(out.getvalue(), "jpeg")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
