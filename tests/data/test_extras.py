"""Extras: what they erase, and that neither workers nor interruptions change it."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from infra import attest
from pipeline.data import dataset
from pipeline.data.feeding.augmentations import augmenter_of
from pipeline.data.feeding.batches import batches_of
from pipeline.data.feeding.composed import erase
from pipeline.data.feeding.cutout import SquareEraser
from pipeline.data.feeding.erasing import BoxEraser
from pipeline.data.feeding.extras import with_extras
from pipeline.errors import ParamsError
from pipeline.params import Cutout, Erasing, Extra, Row, validate
from pipeline.training.identity import run_key, source_of
from pipeline.training.schedules.cosine import CosineSchedule

CPU = torch.device("cpu")
RECIPES = [validate(Extra, document, "test") for document in attest.EXTRAS.values()]
SCHEDULE = CosineSchedule(shape="cosine", base_lr=0.1, total_updates=9, warmup=None)


def test_erasing_equals_a_plain_loop(rng: np.random.Generator):
    images = torch.from_numpy(rng.normal(size=(20, 3, 9, 11)).astype(np.float32))
    boxes = torch.from_numpy(rng.integers(-4, 14, (20, 4)))
    wanted = images.clone()
    for image, (top, left, bottom, right) in zip(wanted, boxes.tolist(), strict=True):
        image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 0.0
    erase(images, boxes)
    assert torch.equal(images, wanted)


def test_a_square_has_its_side_and_lies_anywhere():
    drawn = SquareEraser(Cutout(kind="cutout", side_px=4)).draw(4000, (1, 8, 10), torch.Generator())
    top, left, bottom, right = drawn.T
    assert torch.equal(bottom - top, torch.full_like(top, 4))
    assert torch.equal(right - left, torch.full_like(left, 4))
    assert (int(top.min()), int(top.max())) == (-2, 5)
    assert (int(left.min()), int(left.max())) == (-2, 7)


def test_boxes_have_the_drawn_shares_and_lie_inside():
    recipe = Erasing(
        kind="erasing", probability=0.25, area_fraction={"low": 0.1, "high": 0.3},
        aspect_ratio={"low": 0.5, "high": 2.0},
    )  # fmt: skip
    drawn = BoxEraser(recipe).draw(8000, (3, 64, 64), torch.Generator())
    top, left, bottom, right = drawn.T
    heights, widths = bottom - top, right - left
    erased = heights > 0
    assert float(erased.float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(erased, widths > 0)
    assert (drawn >= 0).all() and (drawn <= 64).all()
    share = (heights * widths)[erased] / 64**2
    assert float(share.min()) > 0.08 and float(share.max()) < 0.33
    assert float(share.mean()) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_sees_the_same(
    digits_path: Path, row: Callable[..., Row], workers: int
):
    data = dataset.load(digits_path)

    def batches(rank: int, of: int):
        augmenter = augmenter_of(row().augmentation, data, CPU)
        shared = {"global_batch_size": 32, "seed": 3, "rank": rank, "workers": of}
        found = batches_of(data.train, augmenter, device=CPU, **shared)
        return with_extras(found, RECIPES, **shared)

    whole = [images.clone() for _, (images, _) in batches(0, 1).between(5, 8)]
    parts = [
        [images.clone() for _, (images, _) in batches(rank, workers).between(5, 8)]
        for rank in range(workers)
    ]
    for number, images in enumerate(whole):
        assert torch.equal(images, torch.cat([part[number] for part in parts]))
    # taken up in the middle it is the same
    assert torch.equal(whole[2], next(batches(0, 1).between(7, 8))[1][0])
    plain = batches_of(
        data.train, augmenter_of(row().augmentation, data, CPU), global_batch_size=32, seed=3,
        device=CPU,
    )  # fmt: skip
    assert not torch.equal(whole[0], next(plain.between(5, 6))[1][0])


def test_a_row_without_extras_has_the_key_that_it_had(row: Callable[..., Row]):
    plain, cut = row(), row(extras=[attest.EXTRAS["cutout"]])
    assert "extras" not in plain.canonical()
    assert cut.canonical()["extras"] == [attest.EXTRAS["cutout"]]
    keys = {run_key("net", one, SCHEDULE, "d" * 64)[0] for one in (plain, cut)}
    assert len(keys) == 2
    sources = {
        source_of(row(extras=some), SCHEDULE)
        for some in ([], *([extra] for extra in attest.EXTRAS.values()))
    }
    assert len(sources) == 1 + len(get_args(get_args(Extra)[0]))


def test_an_impossible_box_is_refused():
    document = {**attest.EXTRAS["erasing"], "area_fraction": {"low": 0.1, "high": 1.5}}
    with pytest.raises(ParamsError, match=r"area_fraction up to 1.5 .* wanted shares up to 1"):
        validate(Extra, document, "test")
