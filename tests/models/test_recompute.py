"""Activation checkpointing: less memory, the same bits."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.models.archs import ARCHS
from pipeline.models.predict import autocast
from pipeline.models.resnet import ResNet, drawn
from pipeline.params import Precision
from tests.conftest import REPO

CPU = torch.device("cpu")


def trained(recompute: bool, precision: Precision) -> dict[str, torch.Tensor]:
    model = drawn(ResNet(ARCHS["resnet-20"], 3, 10, recompute=recompute), seed=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        images = torch.randn((16, 3, 16, 16), generator=generator)
        with autocast(precision, CPU):
            logits = model(images)
        optimizer.zero_grad()
        cross_entropy(logits.float(), torch.arange(16) % 10).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_and_statistics_are_the_same_bits(precision: Precision):
    usual, recomputed = trained(False, precision), trained(True, precision)
    assert usual.keys() == recomputed.keys()
    assert [name for name in usual if not torch.equal(usual[name], recomputed[name])] == []


def kept_bytes(depth: int, recompute: bool) -> int:
    """Returns what a forward pass keeps for the backward pass, each tensor's memory once."""
    arch = replace(ARCHS["resnet-20"], layers=((depth - 2) // 6,) * 3)
    model = drawn(ResNet(arch, 3, 10, recompute=recompute), seed=1)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # they must live, or their places would be used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(torch.randn(4, 3, 16, 16))
    assert logits.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_what_a_layer_more_keeps_shrinks_to_a_fraction():
    """1,202 layers at batch 128 take 16 GB by it: `make trial-memory` measures that."""
    usual, recomputed = (kept_bytes(56, r) - kept_bytes(20, r) for r in (False, True))
    assert 0 < recomputed < usual / 3


@pytest.mark.trial
def test_1202_layers_train_at_batch_128_within_16_gb():
    command = [sys.executable, "-m", "benchmarks.memory", "1202", "--updates", "2"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["activation_checkpointing"]
    assert len(measured["losses"]) == 2
    assert all(loss == loss for loss in measured["losses"])
    assert measured["peak_gib"] < 16e9 / 2**30, measured
