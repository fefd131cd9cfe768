"""A batch is a function of (seed, update)."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import dataset
from pipeline.data.feeding.augmentations import augmenter_of
from pipeline.data.feeding.batches import (
    MemoryBatches,
    Order,
    StreamedBatches,
    batches_of,
    drawn_at,
)
from pipeline.data.feeding.pad_crop import PadCropper
from pipeline.data.feeding.shards import Shard
from pipeline.errors import StorageError
from pipeline.params import PadCrop, ScaleCrop, Span
from tests.photographs import prepared


def batches(path: Path, *, seed: int = 1, rank: int = 0, workers: int = 1) -> MemoryBatches:
    data = dataset.load(path)
    augmenter = PadCropper(PadCrop(kind="pad_crop", pad_px=1, mirror=True), data.mean)
    made = batches_of(
        data.train,
        augmenter,
        global_batch_size=96,
        seed=seed,
        device=torch.device("cpu"),
        rank=rank,
        workers=workers,
    )
    assert isinstance(made, MemoryBatches)
    return made


def test_every_image_is_seen_once_in_each_pass(digits_path: Path):
    made = batches(digits_path)
    stream = torch.cat([made.order.indices(update) for update in range(28)])  # two passes and more
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


def test_every_update_draws_its_own_augmentation(digits_path: Path):
    recipe = PadCrop(kind="pad_crop", pad_px=1, mirror=True)
    augmenter, sizes = PadCropper(recipe, torch.zeros(8, 8, 1)), torch.full((96, 2), 8)
    drawn = [drawn_at(augmenter, sizes, seed, update) for seed, update in ((1, 0), (1, 1), (2, 0))]
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], drawn_at(augmenter, sizes, 1, 0))


def test_any_number_of_workers_sees_the_same_global_batch(digits_path: Path):
    whole = batches(digits_path).batch(5)  # each Batches has buffers of its own
    for workers in (2, 3, 8):
        shares = [batches(digits_path, rank=r, workers=workers).batch(5) for r in range(workers)]
        assert torch.equal(torch.cat([images for images, _ in shares]), whole[0])
        assert torch.equal(torch.cat([labels for _, labels in shares]), whole[1])


def test_another_seed_is_another_order(digits_path: Path):
    assert not torch.equal(
        batches(digits_path, seed=1).order.indices(0),
        batches(digits_path, seed=2).order.indices(0),
    )


# --- photographs in shards ----------------------------------------------------------------------

COUNTS = [5, 9, 7, 3, 8]


def test_every_image_of_shards_is_seen_once_in_each_pass():
    order = Order(COUNTS, together=2, size=6, seed=1)
    stream = torch.cat([order.indices(update) for update in range(12)])
    for epoch in range(2):
        assert sorted(stream[epoch * 32 : (epoch + 1) * 32].tolist()) == list(range(32))
    assert not torch.equal(stream[:32], stream[32:64])


def test_an_update_needs_the_shards_of_its_window_alone():
    order = Order(COUNTS, together=2, size=1, seed=1)
    starts = [sum(COUNTS[:n]) for n in range(5)]
    for update in range(64):
        (place,) = order.indices(update).tolist()
        shard = max(n for n in range(5) if starts[n] <= place)
        assert shard in order.shards_in(order.window_of(update))
    windows = [order.shards_in(window) for window in range(3)]
    assert [len(window) for window in windows] == [2, 2, 1]
    assert sorted(shard for window in windows for shard in window) == list(range(5))


def test_a_set_in_memory_is_one_shard_that_is_shuffled_whole():
    order = Order([1000], together=1, size=100, seed=3)
    first = order.indices(0)
    assert int(first.max()) > 800 and int(first.min()) < 200


def streamed(data: dataset.Dataset, rank: int = 0, workers: int = 1) -> StreamedBatches:
    recipe = ScaleCrop(
        kind="scale_crop", shorter_side_px=Span(low=36, high=60), crop_px=32, mirror=True,
        colour_sd=0.1,
    )  # fmt: skip
    device = torch.device("cpu")
    made = batches_of(
        data.train, augmenter_of(recipe, data, device), global_batch_size=12, seed=1,
        device=device, rank=rank, workers=workers,
    )  # fmt: skip
    assert isinstance(made, StreamedBatches)
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dataset.Dataset:
    return prepared(tmp_path_factory.mktemp("photos"), 30, 8)


def test_photographs_come_the_same_whenever_one_begins(photos: dataset.Dataset):
    whole = dict(streamed(photos).between(0, 7))
    assert [images.shape for images, _ in whole.values()] == [(12, 3, 32, 32)] * 7
    for update, (images, labels) in streamed(photos).between(4, 7):
        assert torch.equal(images, whole[update][0]) and torch.equal(labels, whole[update][1])


def test_any_number_of_workers_sees_the_same_photographs(photos: dataset.Dataset):
    whole = [images for _, (images, _) in streamed(photos).between(0, 3)]
    parts = [
        [images for _, (images, _) in streamed(photos, rank, 3).between(0, 3)] for rank in range(3)
    ]
    for update in range(3):
        assert torch.equal(torch.cat([part[update] for part in parts]), whole[update])


def test_a_photograph_is_cropped_as_an_image_in_memory_is(photos: dataset.Dataset):
    """Decoding, cutting and resizing of one photograph agree with BoxCropper on its pixels."""
    made = streamed(photos)
    for update, (images, _) in made.between(0, 2):
        request = made._request(update)
        drawn = torch.cat([request.boxes, request.mirror[:, None].double()], dim=1)
        for line, place in enumerate(request.places.tolist()):
            with Image.open(io.BytesIO(photos.train.images.content(place))) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB")))[None]
            none = torch.zeros(1, 3, dtype=torch.float64)  # the shift is added below
            single = made._augmenter.apply(pixels, torch.cat([drawn[line : line + 1], none], 1))[0]
            single += request.shift[line][:, None, None]
            assert float((single - images[line]).abs().max()) < 2  # rounded to whole values, twice


def test_a_resumed_training_reads_nothing_that_is_past(tmp_path: Path):
    data = prepared(tmp_path, 30, 8, shuffle_shards=1)
    made = streamed(data)
    list(made.between(3, 4))
    seen = {made.order.window_of(update) for update in (2, 3)}
    allowed = {
        data.train.images.shards[shard].sha256
        for window in (*seen, max(seen) + 1)
        for shard in made.order.shards_in(window)
    }
    assert set(data.train.images.files.asked) <= allowed
    assert len(allowed) < len(data.train.images.shards)


def test_what_is_wrong_with_a_shard_is_told_by_its_own_text(tmp_path: Path):
    data = prepared(tmp_path, 12, 4)

    def damaged(shard: Shard) -> Path:
        raise StorageError(f"{shard.sha256} is damaged")

    data.train.images.files.path = damaged
    with pytest.raises(StorageError) as caught:
        list(streamed(data).between(0, 1))
    assert re.fullmatch("[0-9a-f]{64} is damaged", str(caught.value))
