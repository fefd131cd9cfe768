"""Prepared arrays."""

from pathlib import Path

import pytest
import torch

from pipeline.data import dataset
from pipeline.errors import DataError


def test_splits_share_no_image_and_lose_none(digits_path: Path):
    data = dataset.load(digits_path)
    ids = torch.cat([data.train.ids, data.val.ids, data.test.ids])
    assert sorted(ids.tolist()) == list(range(1797))
    assert (len(data.train), len(data.val), len(data.test)) == (1297, 200, 300)


def test_the_mean_is_the_training_images(digits_path: Path):
    data = dataset.load(digits_path)
    assert torch.allclose(data.mean, data.train.images.double().mean(0).float(), atol=1e-4)


def test_the_digest_is_the_contents(digits_path: Path, tmp_path: Path):
    from safetensors.numpy import load_file

    content = load_file(digits_path)
    assert dataset.content_digest(content) == dataset.load(digits_path).digest
    content["train_images"] = content["train_images"].copy()
    content["train_images"][0, 0, 0, 0] ^= 1
    assert dataset.content_digest(content) != dataset.load(digits_path).digest


def test_missing_arrays_name_the_stage(tmp_path: Path):
    with pytest.raises(DataError, match="dvc repro prepare"):
        dataset.load(tmp_path / "arrays.safetensors")
