"""Augmentation of whole batches against a slow, plain implementation."""

import pytest
import torch

from pipeline.data.feeding.boxes import BoxCropper
from pipeline.data.feeding.pad_crop import PadCropper
from pipeline.data.feeding.random_resized_crop import AreaCropper
from pipeline.data.feeding.scale_crop import ScaleCropper
from pipeline.params import PadCrop, RandomResizedCrop, ScaleCrop


def slow(image: torch.Tensor, mean: torch.Tensor, pad: int, drawn: list[int]) -> torch.Tensor:
    height, width, channels = image.shape
    padded = torch.zeros(height + 2 * pad, width + 2 * pad, channels)
    padded[pad : pad + height, pad : pad + width] = image.float() - mean
    row, column, mirror = drawn
    crop = padded[row : row + height, column : column + width]
    return (crop.flip(1) if mirror else crop).permute(2, 0, 1)


def sizes(count: int) -> torch.Tensor:
    return torch.full((count, 2), 40)


def test_whole_batches_equal_single_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 12, 10, 3), dtype=torch.uint8, generator=generator)
    mean = images.float().mean(0)
    augmenter = PadCropper(PadCrop(kind="pad_crop", pad_px=4, mirror=True), mean)
    drawn = augmenter.draw(sizes(64), generator)
    out = augmenter.apply(images, drawn)
    for index in range(64):
        assert torch.equal(out[index], slow(images[index], mean, 4, drawn[index].tolist()))


def test_every_offset_and_mirror_image_is_drawn():
    augmenter = PadCropper(PadCrop(kind="pad_crop", pad_px=2, mirror=True), torch.zeros(8, 8, 1))
    drawn = augmenter.draw(sizes(2000), torch.Generator().manual_seed(0))
    assert len({tuple(line) for line in drawn.tolist()}) == 5 * 5 * 2


def test_without_mirror_nothing_is_mirrored():
    augmenter = PadCropper(PadCrop(kind="pad_crop", pad_px=2, mirror=False), torch.zeros(8, 8, 1))
    assert int(augmenter.draw(sizes(500), torch.Generator().manual_seed(0))[:, 2].max()) == 0


def test_a_batch_is_channels_last_in_memory():
    augmenter = PadCropper(PadCrop(kind="pad_crop", pad_px=0, mirror=False), torch.zeros(8, 8, 3))
    out = augmenter.apply(
        torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, 3, dtype=torch.long)
    )
    assert out.is_contiguous(memory_format=torch.channels_last)


def scale_crop(**changes: object) -> ScaleCrop:
    recipe = {"kind": "scale_crop", "shorter_side_px": {"low": 256, "high": 480}, "crop_px": 224,
              "mirror": True, "colour_sd": 0.1}  # fmt: skip
    return ScaleCrop(**{**recipe, **changes})


def resized_crop(**changes: object) -> RandomResizedCrop:
    recipe = {"kind": "random_resized_crop", "crop_px": 16, "mirror": True,
              "area_fraction": {"low": 0.08, "high": 1.0},
              "aspect_ratio": {"low": 0.75, "high": 1.333}}  # fmt: skip
    return RandomResizedCrop(**{**recipe, **changes})


def cropper(recipe: ScaleCrop | RandomResizedCrop, size_px: int = 40) -> BoxCropper:
    mean, colours = torch.full((size_px, size_px, 3), 100.0), torch.diag(torch.tensor([3.0, 2, 1]))
    if isinstance(recipe, ScaleCrop):
        return ScaleCropper(recipe, mean, colours)
    return AreaCropper(recipe, mean, colours)


def test_the_papers_scales_are_256_to_480_and_its_crops_lie_within_the_image():
    drawn = cropper(scale_crop()).draw(sizes(5000), torch.Generator().manual_seed(0))
    sides = (224 * 40 / drawn[:, 2]).round()
    assert sides.min() == 256 and sides.max() == 480
    assert len(set(sides.tolist())) == 225
    assert float(drawn[:, :2].min()) >= 0
    assert bool((drawn[:, :2] + drawn[:, 2:4] <= 40).all())


def test_a_scaled_crop_is_cut_out_of_the_resized_image():
    images = torch.randint(0, 256, (1, 40, 40, 3), dtype=torch.uint8)
    augmenter = cropper(scale_crop(crop_px=24, shorter_side_px={"low": 40, "high": 40}))
    drawn = torch.tensor([[7.0, 5, 24, 24, 1, 0, 0, 0]], dtype=torch.float64)
    out = augmenter.apply(images, drawn)
    wanted = (images[0, 7:31, 5:29].float() - 100).flip(1).permute(2, 0, 1)
    torch.testing.assert_close(out[0], wanted, atol=1e-3, rtol=0)


def test_colour_moves_along_the_principal_components():
    images = torch.full((1, 40, 40, 3), 100, dtype=torch.uint8)
    drawn = torch.tensor([[0.0, 0, 40, 40, 0, 1.0, -0.5, 0.0]], dtype=torch.float64)
    out = cropper(scale_crop()).apply(images, drawn)
    torch.testing.assert_close(
        out[0].mean((1, 2)), torch.tensor([3.0, -1.0, 0.0]), atol=1e-3, rtol=0
    )


def test_colour_is_drawn_with_the_papers_standard_deviation():
    drawn = cropper(scale_crop()).draw(sizes(20_000), torch.Generator().manual_seed(0))
    assert drawn[:, 5:].std(dim=0).tolist() == pytest.approx([0.1] * 3, rel=0.03)


def test_random_boxes_have_the_areas_and_ratios_that_were_asked_for():
    drawn = cropper(resized_crop()).draw(sizes(5000), torch.Generator().manual_seed(0))
    heights, widths = drawn[:, 2], drawn[:, 3]
    shares, ratios = heights * widths / 1600, widths / heights
    assert 0.08 <= float(shares.min()) < 0.1 and 0.9 < float(shares.max()) <= 1.0
    assert 0.74 < float(ratios.min()) < 0.78 and 1.28 < float(ratios.max()) < 1.34
    assert bool((drawn[:, :2] + drawn[:, 2:4] <= 40 + 1e-9).all())
    assert float(drawn[:, 5:].abs().max()) == 0


def test_a_box_that_never_fits_is_the_whole_image():
    wide = resized_crop(
        area_fraction={"low": 1.0, "high": 1.0}, aspect_ratio={"low": 2.0, "high": 3.0}
    )
    drawn = cropper(wide).draw(sizes(50), torch.Generator().manual_seed(0))
    assert drawn[:, :4].unique(dim=0).tolist() == [[0, 0, 40, 40]]


def test_a_part_of_a_batch_is_the_same_as_in_the_whole():
    images = torch.randint(0, 256, (8, 40, 40, 3), dtype=torch.uint8)
    augmenter = cropper(resized_crop())
    drawn = augmenter.draw(sizes(8), torch.Generator().manual_seed(0))
    whole = augmenter.apply(images, drawn)
    torch.testing.assert_close(augmenter.apply(images[4:], drawn[4:]), whole[4:], atol=1e-4, rtol=0)
