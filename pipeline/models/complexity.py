"""What a network costs, computed from the network itself: parameters, multiply-adds, layers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Complexity:
    """`multiply_adds` for one image, in convolutions and fully connected layers only, as in Table 1.

    `layers` counts the weighted layers, including projection shortcuts.
    """

    parameters: int
    multiply_adds: int
    layers: int


def complexity(model: nn.Module, image_shape: tuple[int, int, int]) -> Complexity:
    """Returns the complexity of any network in evaluation mode on images (channels, H, W).

    A convolution costs its output's size times the weights of one filter, a fully connected layer its
    weights. One image passes through the network, on the network's own device; on `meta` nothing is
    computed.
    """
    costs: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        costs.append(output.numel() * weight[0].numel())

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, *image_shape, device=layers[0].weight.device))
    for hook in hooks:
        hook.remove()
    return Complexity(parameter_count(model), sum(costs), len(costs))


def parameter_count(model: nn.Module) -> int:
    """Returns the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
