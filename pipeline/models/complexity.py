"""What a network costs, computed from the network itself: parameters, multiply-adds, layers."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Complexity:
    """`multiply_adds` for one image, in convolutions and matrix products only, as in Table 1.

    `layers` counts the weighted layers, including projection shortcuts and attention's projections.
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
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image_shape, device=device))
    layers = sum(
        isinstance(layer, nn.Conv2d | nn.Linear)
        + (isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None)
        for layer in model.modules()
    )
    # a multiply-add is two operations
    return Complexity(parameter_count(model), counter.get_total_flops() // 2, layers)


def parameter_count(model: nn.Module) -> int:
    """Returns the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
