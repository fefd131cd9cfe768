"""The table of networks: each network is one row, which `pipeline.models.resnet` builds."""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

from pipeline.params import CifarNetwork, ImageNetNetwork, Shortcut

CIFAR, IMAGENET = (16, 32, 64), (64, 128, 256, 512)


@dataclass(frozen=True)
class Arch:
    """What distinguishes one network from another.

    `layers` counts the blocks of each stage, `widths` the channels of their 3x3 convolutions; every
    stage but the first halves the image. The stem is the family's: one 3x3 convolution (section
    4.2), or 7x7 with stride 2 and max pooling (Table 1). `shortcut` is "none" for plain networks.
    """

    stem: Literal["3x3", "7x7"]
    block: Literal["plain", "basic", "bottleneck"]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    shortcut: Shortcut

    @property
    def depth(self) -> int:
        """The number of weighted layers, without projection shortcuts, as the paper counts them."""
        return (3 if self.block == "bottleneck" else 2) * sum(self.layers) + 2

    @property
    def name(self) -> str:
        """The usual name of the network, such as resnet-56."""
        return f"{'plain' if self.block == 'plain' else 'resnet'}-{self.depth}"


# The paper's networks, with the option that the paper uses (section 4.1: "in the first comparison
# we use option A"; bottlenecks: B; section 4.2: A).
ARCHS = {
    # Table 1, figure 3    stem   block          layers           widths    shortcut
    "plain-18":      Arch("7x7", "plain",       (2, 2, 2, 2),    IMAGENET, "none"),
    "plain-34":      Arch("7x7", "plain",       (3, 4, 6, 3),    IMAGENET, "none"),
    "resnet-18":     Arch("7x7", "basic",       (2, 2, 2, 2),    IMAGENET, "A"),
    "resnet-34":     Arch("7x7", "basic",       (3, 4, 6, 3),    IMAGENET, "A"),
    "resnet-50":     Arch("7x7", "bottleneck",  (3, 4, 6, 3),    IMAGENET, "B"),
    "resnet-101":    Arch("7x7", "bottleneck",  (3, 4, 23, 3),   IMAGENET, "B"),
    "resnet-152":    Arch("7x7", "bottleneck",  (3, 8, 36, 3),   IMAGENET, "B"),
    # section 4.2, n = 3, 5, 7, 9, 18, 200
    "plain-20":      Arch("3x3", "plain",       (3, 3, 3),       CIFAR,    "none"),
    "plain-32":      Arch("3x3", "plain",       (5, 5, 5),       CIFAR,    "none"),
    "plain-44":      Arch("3x3", "plain",       (7, 7, 7),       CIFAR,    "none"),
    "plain-56":      Arch("3x3", "plain",       (9, 9, 9),       CIFAR,    "none"),
    "plain-110":     Arch("3x3", "plain",       (18, 18, 18),    CIFAR,    "none"),
    "resnet-20":     Arch("3x3", "basic",       (3, 3, 3),       CIFAR,    "A"),
    "resnet-32":     Arch("3x3", "basic",       (5, 5, 5),       CIFAR,    "A"),
    "resnet-44":     Arch("3x3", "basic",       (7, 7, 7),       CIFAR,    "A"),
    "resnet-56":     Arch("3x3", "basic",       (9, 9, 9),       CIFAR,    "A"),
    "resnet-110":    Arch("3x3", "basic",       (18, 18, 18),    CIFAR,    "A"),
    "resnet-1202":   Arch("3x3", "basic",       (200, 200, 200), CIFAR,    "A"),
}  # fmt: skip


def arch_of(network: CifarNetwork | ImageNetNetwork) -> Arch:
    """Returns the arch of a row's network: one from the table, or any 6n+2 of the CIFAR family."""
    match network:
        case CifarNetwork():
            n = (network.depth - 2) // 6
            return Arch("3x3", network.block, (n, n, n), CIFAR, network.shortcut)
        case ImageNetNetwork():
            kind = "plain" if network.block == "plain" else "resnet"
            return replace(ARCHS[f"{kind}-{network.depth}"], shortcut=network.shortcut)
    assert_never(network)
