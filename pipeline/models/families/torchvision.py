"""The family `torchvision`: any of torchvision's classifiers, with random weights."""

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from pipeline.errors import ParamsError
from pipeline.params import TorchvisionNetwork

RANDOM = (nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class Classifier(nn.Module):
    """A classifier of torchvision: images (N, 3, H, W) -> logits float32 (N, classes)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits float32 (N, classes) of float images (N, 3, H, W), mean subtracted."""
        logits: Tensor = self.body(images)
        return logits.float()


def build(
    network: TorchvisionNetwork, channels: int, classes: int, seed: int | None, *, recompute: bool
) -> Classifier:
    """Returns the network as torchvision initializes it, from `seed` alone.

    Raises ParamsError where torchvision has none of that name and those arguments, or where it draws at
    random while it trains: a training that was resumed would draw otherwise.
    """
    if channels != 3:
        raise ParamsError(
            f"network {network.name}: torchvision's networks take three channels, and the data have "
            f"{channels}: take family cifar or imagenet, or colour images"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            body = models.get_model(
                network.name, weights=None, num_classes=classes, **network.arguments
            )
        except (ValueError, TypeError) as error:
            raise ParamsError(
                f"network {network.name}: torchvision: {error}: correct name or arguments (the names: "
                "torchvision.models.list_models(module=torchvision.models))"
            ) from error
    for name, module in body.named_modules():
        rate = module.p if isinstance(module, (*RANDOM, StochasticDepth)) else 0.0
        if rate > 0:
            raise ParamsError(
                f"network {network.name}: {name} drops at random ({rate:g}), and a resumed training "
                "would draw otherwise: add dropout or stochastic_depth_prob 0.0 to its arguments"
            )
    return Classifier(body).to(memory_format=torch.channels_last)
