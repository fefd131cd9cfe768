"""Figure 7's responses, against a plain computation by hand."""

import pytest
import torch
from torch import nn

from pipeline.evaluation.responses import responses
from pipeline.models.networks import build
from pipeline.params import CifarNetwork, ImageNetNetwork, Network


def network(**said: object) -> nn.Module:
    kind = CifarNetwork if said["family"] == "cifar" else ImageNetNetwork
    found: Network = kind(**said)
    model = build(found, 3, 10, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


@pytest.mark.parametrize("block, shortcut", [("plain", "none"), ("basic", "A"), ("basic", "C")])
def test_responses_are_what_the_layers_give_before_the_addition(block: str, shortcut: str):
    model = network(family="cifar", block=block, depth=8, shortcut=shortcut)
    images = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    found = responses(model, [images[:20], images[20:]])
    assert len(found) == 8 - 1  # the classifier is no 3x3 layer
    with torch.no_grad():
        x = model.bn1(model.conv1(images))
        wanted = [x.std(correction=0)]
        x = torch.relu(x)
        for block_ in (block_ for stage in model.stages for block_ in stage):
            first = block_.bn1(block_.conv1(x))
            second = block_.bn2(block_.conv2(torch.relu(first)))
            wanted += [first.std(correction=0), second.std(correction=0)]
            added = second if block == "plain" else second + block_.shortcut(x)
            x = torch.relu(added)
    assert found == pytest.approx([float(std) for std in wanted], rel=1e-4)
    assert not any(module._forward_hooks for module in model.modules())


def test_networks_of_which_figure_7_does_not_speak_have_none():
    photographs = network(family="imagenet", block="basic", depth=18, shortcut="A")
    assert responses(photographs, [torch.randn(2, 3, 32, 32)]) == []
    assert responses(nn.Linear(2, 2), [torch.randn(2, 2)]) == []
    small = network(family="cifar", block="plain", depth=8, shortcut="none")
    assert responses(small, []) == []
