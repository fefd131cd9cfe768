"""The families of networks: each is a file of its name in `families`.

Torch is imported where a network is built, so that who imports this does not wait for it.
"""

from typing import TYPE_CHECKING, assert_never

from pipeline.params import CifarNetwork, ImageNetNetwork, Network, TorchvisionNetwork

if TYPE_CHECKING:
    from torch import nn


def build(
    network: Network,
    channels: int,
    classes: int,
    seed: int | None = None,
    *,
    recompute: bool = False,
) -> "nn.Module":
    """Returns a network (N, channels, H, W) -> logits float32 (N, classes); without `seed`, of any weights.

    With `recompute`, blocks of the paper's networks keep only their inputs for the backward pass. Raises
    ParamsError where the network cannot be built.
    """
    from pipeline.models.families import cifar, imagenet

    match network:
        case CifarNetwork():
            return cifar.build(network, channels, classes, seed, recompute=recompute)
        case ImageNetNetwork():
            return imagenet.build(network, channels, classes, seed, recompute=recompute)
        case TorchvisionNetwork():
            from pipeline.models.families import torchvision  # a second more to import

            return torchvision.build(network, channels, classes, seed, recompute=recompute)
    assert_never(network)
