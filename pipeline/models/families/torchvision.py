"""The family `torchvision`: any of torchvision's classifiers, with random weights."""

import difflib

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from pipeline.errors import ParamsError
from pipeline.models.resnet import in_float32
from pipeline.params import TorchvisionNetwork

AUXILIARY = ("googlenet", "inception_v3")
RANDOM = (nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class ExactLinear(nn.Linear):
    """A fully connected layer that computes in float32 in a network of any precision."""

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102 - as its parent's
        return in_float32(super().forward, inputs.float())


class ExactConv2d(nn.Conv2d):
    """A convolution that computes in float32 in a network of any precision: SqueezeNet's classifier."""

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102 - as its parent's
        return in_float32(super().forward, inputs.float())


EXACT: dict[type[nn.Module], type[ExactLinear | ExactConv2d]] = {
    nn.Linear: ExactLinear,
    nn.Conv2d: ExactConv2d,
}


class Classifier(nn.Module):
    """A classifier of torchvision: images (N, 3, H, W) -> logits float32 (N, classes).

    Its last layer computes in float32 whatever the precision of the others (docs/adr/0013).
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        layers = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        layers[-1].__class__ = EXACT[type(layers[-1])]

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits float32 (N, classes) of float images (N, 3, H, W), mean subtracted."""
        logits: Tensor = self.body(images)
        return logits


def build(
    network: TorchvisionNetwork, channels: int, classes: int, seed: int | None, *, recompute: bool
) -> Classifier:
    """Returns the network as torchvision initializes it, from `seed` alone.

    Raises ParamsError if torchvision has no network with that name and those arguments, or if the
    network draws random numbers in training: a resumed training would draw different ones.
    """
    if channels != 3:
        raise ParamsError(
            f"network {network.name}: torchvision's networks take three channels, but the data have "
            f"{channels}: use family cifar or imagenet, or color images"
        )
    _require_repeatable(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        try:
            body = models.get_model(
                network.name, weights=None, num_classes=classes, **network.arguments
            )
            body = body.to(memory_format=torch.channels_last)
        except NotImplementedError:  # RegNets on a device without data
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            raise ParamsError(
                f"network {network.name}: torchvision: {error}: correct the arguments"
            ) from error
    for name, module in body.named_modules():
        rate = module.p if isinstance(module, (*RANDOM, StochasticDepth)) else 0.0
        if rate > 0:
            raise ParamsError(
                f"network {network.name}: {name} drops at random ({rate:g}), and a resumed training "
                "would draw different numbers: set the argument for it (dropout, stochastic_depth_prob) "
                "to 0.0, or use another network"
            )
    return Classifier(body)


def _require_repeatable(network: TorchvisionNetwork) -> None:
    """Raises ParamsError for anything but an image classifier, and for dropout that no module shows."""
    name, arguments = network.name, network.arguments
    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3)) or "none like it"
        raise ParamsError(
            f"network {name}: torchvision has no classifier of that name: wanted one of "
            f"torchvision.models.list_models(module=torchvision.models): {near}"
        )
    drops = [key for key, value in arguments.items() if "drop" in key and value]
    if drops:
        raise ParamsError(
            f"network {name}: {drops[0]} is {arguments[drops[0]]}, and a resumed training would draw "
            "different numbers: wanted 0.0"
        )
    if name in AUXILIARY and arguments.get("aux_logits") is not False:
        raise ParamsError(
            f"network {name}: returns more than logits in training: add aux_logits: false to its "
            "arguments (and init_weights: true or false)"
        )
