"""The table of networks: a network is a row of facts, built by `pipeline.models.resnet`."""

from dataclasses import dataclass
from typing import Literal

from pipeline.params import Network


@dataclass(frozen=True)
class Arch:
    """What distinguishes one network from another.

    `layers` counts the blocks of each stage, `widths` their output channels; every stage but the
    first halves the image. `shortcut` is "none" for plain networks.
    """

    block: Literal["basic"]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    shortcut: Literal["none", "A"]

    @property
    def name(self) -> str:
        """The field's name of the network, such as resnet-56."""
        depth = 2 * sum(self.layers) + 2
        return f"{'plain' if self.shortcut == 'none' else 'resnet'}-{depth}"


def arch_of(network: Network) -> Arch:
    """Returns the arch of a CIFAR network: 6n+2 weighted layers, n blocks a stage (section 4.2)."""
    n = (network.depth - 2) // 6
    return Arch("basic", layers=(n, n, n), widths=(16, 32, 64), shortcut=network.shortcut)
