"""The families of networks: each is the file of that name in `families`.

Torch is imported only where a network is built, so that importing this module does not wait for it.
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
    """Returns a network (N, channels, H, W) -> logits float32 (N, classes).

    Without `seed`, its weights are arbitrary. With `recompute`, blocks of the paper's networks keep only
    their inputs for the backward pass. Raises ParamsError if the network cannot be built.
    """
    from pipeline.models.families import cifar, imagenet

    match network:
        case CifarNetwork():
            return cifar.build(network, channels, classes, seed, recompute=recompute)
        case ImageNetNetwork():
            return imagenet.build(network, channels, classes, seed, recompute=recompute)
        case TorchvisionNetwork():
            from pipeline.models.families import torchvision  # takes another second to import

            return torchvision.build(network, channels, classes, seed, recompute=recompute)
    assert_never(network)
