"""Augmentation of whole batches against a slow, plain implementation."""

import torch

from pipeline.data.augment import Augmenter
from pipeline.params import Augmentation


def slow(image: torch.Tensor, mean: torch.Tensor, pad: int, drawn: list[int]) -> torch.Tensor:
    height, width, channels = image.shape
    padded = torch.zeros(height + 2 * pad, width + 2 * pad, channels)
    padded[pad : pad + height, pad : pad + width] = image.float() - mean
    row, column, mirror = drawn
    crop = padded[row : row + height, column : column + width]
    return (crop.flip(1) if mirror else crop).permute(2, 0, 1)


def test_whole_batches_equal_single_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 12, 10, 3), dtype=torch.uint8, generator=generator)
    mean = images.float().mean(0)
    augmenter = Augmenter(Augmentation(pad_px=4, mirror=True), mean)
    drawn = augmenter.draw(64, generator)
    out = augmenter.apply(images, drawn)
    for index in range(64):
        assert torch.equal(out[index], slow(images[index], mean, 4, drawn[index].tolist()))


def test_every_offset_and_mirror_image_is_drawn():
    augmenter = Augmenter(Augmentation(pad_px=2, mirror=True), torch.zeros(8, 8, 1))
    drawn = augmenter.draw(2000, torch.Generator().manual_seed(0))
    assert len({tuple(line) for line in drawn.tolist()}) == 5 * 5 * 2


def test_without_mirror_nothing_is_mirrored():
    augmenter = Augmenter(Augmentation(pad_px=2, mirror=False), torch.zeros(8, 8, 1))
    assert int(augmenter.draw(500, torch.Generator().manual_seed(0))[:, 2].max()) == 0


def test_a_batch_is_channels_last_in_memory():
    augmenter = Augmenter(Augmentation(pad_px=0, mirror=False), torch.zeros(8, 8, 3))
    out = augmenter.apply(
        torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, 3, dtype=torch.long)
    )
    assert out.is_contiguous(memory_format=torch.channels_last)
