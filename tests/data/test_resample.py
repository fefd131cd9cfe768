"""Crops resized as a batch, against Pillow one by one."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.feeding.resample import resample

BOXES = [
    (0.0, 0.0, 61.0, 47.0),  # the whole image, reduced
    (3.3, 5.7, 30.2, 20.9),  # about the crop's size
    (10.0, 4.0, 9.0, 7.5),  # enlarged
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("mirror", [False, True])
def test_a_crop_is_pillows_antialiased_one(
    box: tuple[float, ...], mirror: bool, rng: np.random.Generator
):
    image = rng.integers(0, 256, (61, 47, 3), dtype=np.uint8)
    top, left, height, width = box
    wanted = np.asarray(
        Image.fromarray(image).resize(
            (24, 24), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
        )
    )
    wanted = wanted[:, ::-1] if mirror else wanted
    out = resample(
        torch.from_numpy(image)[None], torch.tensor([box], dtype=torch.float64),
        torch.tensor([mirror]), 24,
    )  # fmt: skip
    # Pillow rounds to whole grey levels twice
    assert np.abs(out[0].numpy() - wanted).max() <= 1.01


def test_a_whole_image_at_its_own_size_is_itself(rng: np.random.Generator):
    images = torch.from_numpy(rng.integers(0, 256, (3, 20, 20, 1), dtype=np.uint8))
    whole = torch.tensor([[0.0, 0.0, 20.0, 20.0]] * 3, dtype=torch.float64)
    out = resample(images, whole, torch.zeros(3, dtype=torch.bool), 20)
    assert torch.equal(out, images.float())
