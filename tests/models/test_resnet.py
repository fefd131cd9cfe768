"""The networks against the paper."""

import pytest
import torch

from pipeline import paper
from pipeline.models.archs import arch_of
from pipeline.models.blocks import BasicBlock, ShortcutA
from pipeline.models.resnet import ResNet, build, parameter_count
from pipeline.params import Network


def network(depth: int, shortcut: str = "A") -> ResNet:
    return ResNet(arch_of(Network(family="cifar", depth=depth, shortcut=shortcut)), 3, 10)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_parameters_are_table_6s(depth: int):
    digits = 2 if depth < 110 else 1
    assert (
        round(parameter_count(network(depth)) / 1e6, digits)
        == paper.CIFAR10_RESNET_PARAMETERS_M[depth]
    )


def test_exact_parameters_of_20_and_1202_layers():
    assert parameter_count(network(20)) == 269_722
    assert parameter_count(network(1202)) == 19_421_274


def test_option_a_adds_no_parameters():
    assert parameter_count(network(56, "A")) == parameter_count(network(56, "none"))


def test_weighted_layers_are_as_many_as_the_name_says():
    layers = [m for m in network(56).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 56


def test_shortcut_a_takes_every_second_pixel_and_adds_zero_channels():
    x = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    out = ShortcutA(3, 6, stride=2)(x)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 3:], torch.zeros(2, 3, 2, 2))


def test_a_residual_block_is_relu_of_x_plus_f_of_x():
    block = BasicBlock(4, 4, 1).eval()
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(block(x), torch.relu(x + block.residual(x)))


def test_the_last_stage_is_a_quarter_of_the_image():
    features = network(20).stages(torch.zeros(1, 16, 32, 32))
    assert features.shape == (1, 64, 8, 8)


def test_initial_weights_depend_on_the_seed_alone():
    arch = arch_of(Network(family="cifar", depth=8, shortcut="A"))
    torch.manual_seed(5)
    first = build(arch, 3, 10, seed=1).conv1.weight
    torch.manual_seed(6)
    assert torch.equal(first, build(arch, 3, 10, seed=1).conv1.weight)
    assert not torch.equal(first, build(arch, 3, 10, seed=2).conv1.weight)


def test_convolutions_start_with_variance_two_over_fan_in():
    weight = (
        build(arch_of(Network(family="cifar", depth=56, shortcut="A")), 3, 10, 0)
        .stages[2][5]
        .conv1.weight
    )
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
