"""What a network costs, computed from the network itself: parameters, multiply-adds, layers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.models.resnet import ResNet


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
    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    layers = sum(
        isinstance(layer, nn.Conv2d | nn.Linear)
        + (isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None)
        for layer in model.modules()
    )
    count = _of_layers if isinstance(model, ResNet) else _of_operations
    return Complexity(parameter_count(model), count(model, image), layers)


def _of_layers(model: nn.Module, image: Tensor) -> int:
    """Counts in a network of convolutions and fully connected layers alone; imports nothing.

    torch's counter imports torch's compiler, which takes longer than a small network's evaluation.
    """
    costs: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        costs.append(output.numel() * layer.weight[0].numel())

    hooks = [
        layer.register_forward_hook(count)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return sum(costs)


def _of_operations(model: nn.Module, image: Tensor) -> int:
    """Counts in any network, whatever it multiplies."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    operations: int = counter.get_total_flops()
    return operations // 2  # a multiply-add is two


def parameter_count(model: nn.Module) -> int:
    """Returns the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
