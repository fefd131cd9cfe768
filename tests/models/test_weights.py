"""A trained network as files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import paths
from pipeline.errors import CheckpointError
from pipeline.models import weights
from pipeline.models.networks import build
from pipeline.params import CifarNetwork
from tests.checkpoints import model_facts


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    network = CifarNetwork(family="cifar", block="basic", depth=8, shortcut="A")
    model = build(network, 1, 3, seed=1)
    facts = model_facts(network, channels=1, classes=("a", "b", "c"))
    weights.save(
        tmp_path / "row",
        {name: value.numpy() for name, value in model.state_dict().items()},
        np.ones((8, 8, 1), np.float32),
        facts,
    )
    return tmp_path / "row"


def test_a_saved_network_predicts_the_same(saved: Path):
    trained = weights.load(saved)
    again = build(
        CifarNetwork(family="cifar", block="basic", depth=8, shortcut="A"), 1, 3, seed=1
    ).eval()
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(trained.model(images), again(images))
    assert torch.equal(trained.mean, torch.ones(8, 8, 1))


def test_damaged_weights_are_refused(saved: Path):
    path = saved / paths.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"sha256 .*, expected .*dvc checkout train@row"):
        weights.load(saved)


def test_missing_weights_name_the_command_that_brings_them(saved: Path):
    (saved / paths.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="dvc pull train@row"):
        weights.load(saved)


def test_weights_of_another_network_are_refused(saved: Path):
    facts = json.loads((saved / paths.FACTS).read_text())
    facts["network"]["depth"] = 14
    (saved / paths.FACTS).write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="do not fit"):
        weights.load(saved)
