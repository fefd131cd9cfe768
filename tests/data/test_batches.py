"""A batch is a function of (seed, update)."""

from pathlib import Path

import torch

from pipeline.data import arrays
from pipeline.data.augment import PadCropper
from pipeline.data.batches import Batches
from pipeline.params import PadCrop


def batches(path: Path, *, seed: int = 1, rank: int = 0, workers: int = 1) -> Batches:
    data = arrays.load(path)
    augmenter = PadCropper(PadCrop(kind="pad_crop", pad_px=1, mirror=True), data.mean)
    return Batches(
        data.train, augmenter, global_batch_size=96, seed=seed, rank=rank, workers=workers
    )


def test_every_image_is_seen_once_in_each_pass(digits_path: Path):
    made = batches(digits_path)
    stream = torch.cat([made.indices(update) for update in range(28)])  # two passes and more
    for epoch in range(2):
        part = stream[epoch * 1297 : (epoch + 1) * 1297]
        assert sorted(part.tolist()) == list(range(1297))
    assert not torch.equal(stream[:1297], stream[1297:2594])


def test_a_batch_does_not_depend_on_those_before(digits_path: Path):
    images, labels = batches(digits_path).batch(17)
    for update, (some_images, some_labels) in batches(digits_path).between(0, 18):
        if update == 17:
            assert torch.equal(images, some_images)
            assert torch.equal(labels, some_labels)


def test_any_number_of_workers_sees_the_same_global_batch(digits_path: Path):
    whole = batches(digits_path).batch(5)  # each Batches has buffers of its own
    for workers in (2, 3, 8):
        shares = [batches(digits_path, rank=r, workers=workers).batch(5) for r in range(workers)]
        assert torch.equal(torch.cat([images for images, _ in shares]), whole[0])
        assert torch.equal(torch.cat([labels for _, labels in shares]), whole[1])


def test_another_seed_is_another_order(digits_path: Path):
    assert not torch.equal(
        batches(digits_path, seed=1).indices(0), batches(digits_path, seed=2).indices(0)
    )
