"""Small pictures of test images, of whatever file they are."""

import base64
import io

import pytest
from PIL import Image

from pipeline.report.thumbnails import SIDE_PX, _jpeg
from tests.photographs import jpeg, piece


def shown(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.mark.parametrize("enlarged", [1, 8])
@pytest.mark.parametrize(
    "kind, mode", [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L")]
)
def test_photographs_are_shown_small(enlarged: int, kind: str, mode: str):
    image = piece("china", 1)
    image = image.resize((image.width * enlarged, image.height * enlarged)).convert(mode)
    out = io.BytesIO()
    image.save(out, kind)
    found = shown(_jpeg(out.getvalue()))
    assert found.mode == "RGB"
    assert max(found.size) <= 2 * SIDE_PX
    assert found.size == image.size or max(found.size) == 2 * SIDE_PX


def test_it_is_the_image():
    image = piece("flower", 2)
    found = shown(_jpeg(jpeg(image)))
    assert found.size == image.size
