"""Photographs as they are found: odd ones are read as the field does, broken ones are named."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.feeding.decoding import cut, size_of
from pipeline.data.sources.photos import examine
from pipeline.errors import DataError
from tests.photographs import jpeg, piece


def test_a_photograph_is_kept_as_it_is():
    image = piece("china", 1)
    photo = examine(jpeg(image), "a", None, None)
    assert (photo.content, photo.width, photo.height) == (jpeg(image), *image.size)
    assert photo.oddities == ()
    assert photo.thumbnail.shape == (64, 64, 3)


def test_a_large_one_is_made_smaller_and_a_small_one_is_not():
    image = piece("flower", 2)
    short = min(image.size)
    photo = examine(jpeg(image), "a", short // 2, 80)
    assert min(photo.width, photo.height) == short // 2
    with Image.open(io.BytesIO(photo.content)) as smaller:
        assert smaller.size == (photo.width, photo.height) == size_of(image.size, short // 2)
    assert examine(jpeg(image), "a", short, 80).content == jpeg(image)


def test_cmyk_grey_and_a_png_that_is_named_jpeg_are_read_and_counted():
    image = piece("china", 3)
    png = io.BytesIO()
    image.save(png, "PNG")
    found = {
        "cmyk": examine(jpeg(image.convert("CMYK")), "a", None, None),
        "grey": examine(jpeg(image.convert("L")), "a", None, None),
        "png": examine(png.getvalue(), "a.JPEG", None, None),
    }
    assert {name: photo.oddities for name, photo in found.items()} == {
        "cmyk": ("not_rgb",), "grey": ("not_rgb",), "png": ("not_jpeg",),
    }  # fmt: skip
    whole = (0.0, 0.0, image.height, image.width)
    for photo in found.values():
        assert cut(photo.content, whole, (32, 32), False).shape == (32, 32, 3)
    pixels = cut(png.getvalue(), whole, (image.height, image.width), False)
    assert np.array_equal(pixels, np.asarray(image))


def test_an_exif_rotation_is_counted_and_not_applied():
    image, exif = piece("flower", 4), Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    photo = examine(jpeg(image, exif=exif), "a", None, None)
    assert photo.oddities == ("rotated_by_exif",)
    assert (photo.width, photo.height) == image.size


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(kept: float):
    content = jpeg(piece("china", 5))
    with pytest.raises(DataError, match=r"train/china/x\.JPEG: the image does not decode"):
        examine(content[: int(kept * len(content))], "train/china/x.JPEG", None, None)


def test_what_is_no_image_is_named():
    with pytest.raises(DataError, match=r"data\.undecodable_images"):
        examine(b"no image", "train/china/x.JPEG", None, None)


def test_a_box_is_a_crop_of_the_resized_image():
    image = piece("china", 6).resize((90, 60))
    png = io.BytesIO()
    image.save(png, "PNG")
    small = np.asarray(image.resize((45, 30), Image.Resampling.BILINEAR))
    box = cut(png.getvalue(), (10.0, 20.0, 40.0, 48.0), (20, 24), False)
    assert np.abs(box.astype(int) - small[5:25, 10:34]).max() <= 1
    mirrored = cut(png.getvalue(), (10.0, 20.0, 40.0, 48.0), (20, 24), True)
    assert np.array_equal(mirrored, box[:, ::-1])
