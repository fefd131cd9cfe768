"""The family `cifar`: the networks of section 4.2."""

from pipeline.models.archs import arch_of
from pipeline.models.resnet import ResNet, drawn
from pipeline.params import CifarNetwork


def build(
    network: CifarNetwork, channels: int, classes: int, seed: int | None, *, recompute: bool
) -> ResNet:
    """Returns the network with weights that depend on `seed` alone."""
    return drawn(ResNet(arch_of(network), channels, classes, recompute=recompute), seed)
