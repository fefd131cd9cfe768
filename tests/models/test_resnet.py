"""The networks against the paper, and against torchvision's."""

import pytest
import torch
from torch import nn

from pipeline import paper
from pipeline.models.archs import ARCHS, arch_of
from pipeline.models.blocks import BasicBlock, Bottleneck, Projection, ShortcutA, shortcut
from pipeline.models.complexity import (
    Complexity,
    _of_layers,
    _of_operations,
    complexity,
    parameter_count,
)
from pipeline.models.resnet import ResNet, drawn
from pipeline.params import IMAGENET_DEPTHS, CifarNetwork, ImageNetNetwork

CIFAR = sorted(name for name, arch in ARCHS.items() if arch.stem == "3x3")
IMAGENET = sorted(name for name, arch in ARCHS.items() if arch.stem == "7x7")
PROJECTIONS = {"none": 0, "A": 0, "B": 3, "C": 16}


def network(depth: int, shortcut: str = "A") -> ResNet:
    block = "plain" if shortcut == "none" else "basic"
    row = CifarNetwork(family="cifar", block=block, depth=depth, shortcut=shortcut)
    return ResNet(arch_of(row), 3, 10)


def imagenet(depth: int, shortcut: str, block: str = "basic") -> ResNet:
    row = ImageNetNetwork(family="imagenet", block=block, depth=depth, shortcut=shortcut)
    return ResNet(arch_of(row), 3, 1000)


@pytest.mark.parametrize("name", ARCHS)
def test_a_network_is_as_deep_as_its_name_says(name: str):
    assert ARCHS[name].name == name
    model = ResNet(ARCHS[name], 3, 10)
    shortcuts = sum(isinstance(module, Projection) for module in model.modules())
    assert on_meta(model, (3, 32, 32)).layers - shortcuts == ARCHS[name].depth


@pytest.mark.parametrize("name", ["resnet-20", "plain-20", "resnet-50"])
def test_multiply_adds_are_those_that_torch_counts(name: str):
    model = ResNet(ARCHS[name], 3, 10).to("meta").eval()
    image = torch.zeros(1, 3, 64, 48, device="meta")
    assert _of_layers(model, image) == _of_operations(model, image)


def on_meta(model: nn.Module, image_shape: tuple[int, int, int]) -> Complexity:
    return complexity(model.to("meta").eval(), image_shape)


@pytest.mark.parametrize("name", CIFAR)
def test_a_row_of_params_gives_the_networks_of_section_4_2(name: str):
    arch = ARCHS[name]
    row = CifarNetwork(family="cifar", block=arch.block, depth=arch.depth, shortcut=arch.shortcut)
    assert arch_of(row) == arch


def test_the_depths_that_params_admits_are_those_of_the_table():
    table = {
        block: tuple(
            sorted(a.depth for a in ARCHS.values() if a.stem == "7x7" and a.block == block)
        )
        for block in IMAGENET_DEPTHS
    }
    assert table == IMAGENET_DEPTHS


@pytest.mark.parametrize("depth", paper.CIFAR10_RESNET_PARAMETERS_M)
def test_parameters_are_table_6s(depth: int):
    digits = 2 if depth < 110 else 1
    found = parameter_count(network(depth)) / 1e6
    assert round(found, digits) == paper.CIFAR10_RESNET_PARAMETERS_M[depth]


def test_exact_parameters_of_20_and_1202_layers():
    assert parameter_count(network(20)) == 269_722
    assert parameter_count(network(1202)) == 19_421_274


@pytest.mark.parametrize("depth, block, millions", [
    (18, "basic", 11.69), (34, "basic", 21.80), (50, "bottleneck", 25.56),
    (101, "bottleneck", 44.55), (152, "bottleneck", 60.19),
])  # fmt: skip
def test_parameters_of_the_imagenet_networks_with_option_b(depth: int, block: str, millions: float):
    assert round(parameter_count(imagenet(depth, "B", block)) / 1e6, 2) == millions


@pytest.mark.parametrize("name", IMAGENET)
def test_multiply_adds_are_table_1s(name: str):
    """Within less than one unit of the last printed digit: 50 layers are 3.858, printed as 3.8."""
    found = on_meta(ResNet(ARCHS[name], 3, 1000), (3, 224, 224)).multiply_adds / 1e9
    assert abs(found - paper.MULTIPLY_ADDS_G[ARCHS[name].depth]) < 0.06


def test_multiply_adds_of_vgg_19_by_the_same_code():
    from torchvision import models  # seconds, which only who runs this test waits

    found = on_meta(models.vgg19(), (3, 224, 224)).multiply_adds
    assert round(found / 1e9, 1) == paper.VGG_19_MULTIPLY_ADDS_G


@pytest.mark.parametrize("name, layers", [("vit_b_16", 50), ("swin_t", 53), ("mobilenet_v2", 53)])
def test_attention_and_groups_count_as_torchvision_says(name: str, layers: int):
    from torchvision import models  # seconds, which only who runs this test waits

    with torch.device("meta"):
        found = on_meta(models.get_model(name), (3, 224, 224))
    said = models.get_model_weights(name).DEFAULT.meta["_ops"]  # billions
    assert found.multiply_adds / 1e9 == pytest.approx(said, abs=0.0005)
    assert found.layers == layers  # of ViT: patches, 12 times 4, head


def test_a_stride_in_the_3x3_convolution_would_not_be_table_1s():
    from torchvision import models  # seconds, which only who runs this test waits

    found = on_meta(models.resnet50(), (3, 224, 224)).multiply_adds
    assert found / 1e9 - paper.MULTIPLY_ADDS_G[50] > 0.2
    assert [m.conv1.stride for m in imagenet(50, "B", "bottleneck").modules()
            if isinstance(m, Bottleneck)].count((2, 2)) == 3  # fmt: skip


@pytest.mark.parametrize("shortcut, projections", PROJECTIONS.items())
def test_projections_stand_where_the_option_says(shortcut: str, projections: int):
    model = imagenet(34, shortcut, "plain" if shortcut == "none" else "basic")
    assert sum(isinstance(module, Projection) for module in model.modules()) == projections


def test_option_a_adds_no_parameters():
    assert parameter_count(network(56, "A")) == parameter_count(network(56, "none"))
    assert parameter_count(network(56, "A")) < parameter_count(network(56, "B"))
    assert parameter_count(network(56, "B")) < parameter_count(network(56, "C"))


@pytest.mark.parametrize("depth", [18, 34])
def test_logits_equal_torchvisions(depth: int):
    from torchvision import models

    theirs = getattr(models, f"resnet{depth}")().eval()
    for norm in theirs.modules():  # statistics and scales as after a training
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
                tensor.normal_(0.5, 0.2)
    names = {
        "layer1": "stages.0", "layer2": "stages.1", "layer3": "stages.2", "layer4": "stages.3",
        "downsample.0": "shortcut.conv", "downsample.1": "shortcut.bn",
    }  # fmt: skip
    weights = {}
    for name, value in theirs.state_dict().items():
        for their_name, our_name in names.items():
            name = name.replace(their_name, our_name)
        weights[name] = value
    ours = imagenet(depth, "B").eval()
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        wanted = theirs(images)
        torch.testing.assert_close(
            ours(images) / wanted.std(), wanted / wanted.std(), atol=1e-5, rtol=0
        )


def test_shortcut_a_takes_every_second_pixel_and_adds_zero_channels():
    x = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    out = ShortcutA(3, 6, stride=2)(x)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 3:], torch.zeros(2, 3, 2, 2))


def test_option_b_is_the_identity_where_dimensions_do_not_grow():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(shortcut("B", 8, 8, 1)(x), x)
    assert isinstance(shortcut("B", 8, 16, 2), Projection)
    assert isinstance(shortcut("C", 8, 8, 1), Projection)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_residual_block_is_relu_of_x_plus_f_of_x(block: type[BasicBlock]):
    made = block(4 * block.expansion, 4, 1, "A").eval()
    x = torch.randn(2, 4 * block.expansion, 8, 8)
    with torch.no_grad():
        assert torch.allclose(made(x), torch.relu(x + made.residual(x)))


def test_the_last_stage_is_a_quarter_of_a_cifar_image_and_a_32nd_of_imagenets():
    assert network(20).stages(torch.zeros(1, 16, 32, 32)).shape == (1, 64, 8, 8)
    assert imagenet(18, "B").stages(torch.zeros(1, 64, 56, 56)).shape == (1, 512, 7, 7)


def test_initial_weights_depend_on_the_seed_alone():
    arch = ARCHS["resnet-20"]
    torch.manual_seed(5)
    first = drawn(ResNet(arch, 3, 10), seed=1).conv1.weight
    torch.manual_seed(6)
    assert torch.equal(first, drawn(ResNet(arch, 3, 10), seed=1).conv1.weight)
    assert not torch.equal(first, drawn(ResNet(arch, 3, 10), seed=2).conv1.weight)


def test_convolutions_start_with_variance_two_over_fan_in():
    weight = drawn(ResNet(ARCHS["resnet-56"], 3, 10), 0).stages[2][5].conv1.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
