"""Section 1: a deeper plain network that is no worse exists, made of a shallower one and identity layers."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.blocks import PlainBlock
from pipeline.models.networks import build
from pipeline.models.resnet import ResNet
from pipeline.params import CifarNetwork, ImageNetNetwork


def identity(block: PlainBlock) -> None:
    """Makes a block return what it is given, which is never negative: after a ReLU."""
    for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.dirac_(conv.weight)
        bn.reset_parameters()  # mean 0, variance 1, scale 1, shift 0
        assert bn.eps is not None
        nn.init.constant_(bn.weight, (1 + bn.eps) ** 0.5)


def deepened(shallow: ResNet, deep: ResNet) -> ResNet:
    """Returns the deep network with the layers of the shallow one, and identity layers at each stage's end."""
    for name in ("conv1", "bn1", "fc"):
        getattr(deep, name).load_state_dict(getattr(shallow, name).state_dict())
    for few, many in zip(shallow.stages, deep.stages, strict=True):
        for number, block in enumerate(many):
            if number < len(few):
                block.load_state_dict(few[number].state_dict())
            else:
                identity(block)
    return deep.eval()


@pytest.mark.parametrize(
    "shallow, deep, side",
    [
        (CifarNetwork(family="cifar", block="plain", depth=20, shortcut="none"),
         CifarNetwork(family="cifar", block="plain", depth=56, shortcut="none"), 32),
        (ImageNetNetwork(family="imagenet", block="plain", depth=18, shortcut="none"),
         ImageNetNetwork(family="imagenet", block="plain", depth=34, shortcut="none"), 64),
    ],
)  # fmt: skip
def test_identity_layers_change_nothing(shallow, deep, side: int):
    first, second = (build(row, 3, 10, seed=seed) for seed, row in ((1, shallow), (2, deep)))
    images: Tensor = torch.randn(4, 3, side, side)
    with torch.no_grad():
        first.train()(images)  # batch norms with statistics of their own
        wanted = first.eval()(images)
        assert (second.eval()(images) - wanted).abs().max() > 0.01
        found = deepened(first, second)(images)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
