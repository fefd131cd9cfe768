"""How strongly a network's layers respond: figure 7."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.models.blocks import Bottleneck, PlainBlock
from pipeline.models.predict import predict
from pipeline.models.resnet import ResNet


def responses(model: nn.Module, inputs: Iterable[Tensor]) -> list[float]:
    """Returns the standard deviation of each 3x3 layer's output, from the first layer to the last.

    The output is taken after batch normalization and before the addition and the nonlinearity (figure 7),
    over all images, channels and positions, in float32. `inputs` are float32 (n, C, H, W), mean subtracted.
    Nothing without inputs, and of networks other than the paper's on small images, of which figure 7 speaks.
    """
    if not isinstance(model, ResNet) or not isinstance(model.pool, nn.Identity):
        return []
    layers = [model.bn1]
    for block in model.modules():
        if isinstance(block, PlainBlock):
            layers += [block.bn1, block.bn2]
        elif isinstance(block, Bottleneck):
            layers.append(block.bn2)
    sums = torch.zeros(len(layers), 3, dtype=torch.float64)  # count, sum, sum of squares

    def watch(place: int) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, __: object, output: Tensor) -> None:
            found = output.double()
            sums[place] += torch.stack(
                [torch.tensor(found.numel()), found.sum().cpu(), found.square().sum().cpu()]
            )

        return layers[place].register_forward_hook(add)

    handles = [watch(place) for place in range(len(layers))]
    try:
        for _ in predict(model, inputs, "float32"):
            pass
    finally:
        for handle in handles:
            handle.remove()
    count, total, squares = sums.unbind(dim=1)
    if not count.any():
        return []
    variance = squares / count - (total / count) ** 2
    found: list[float] = variance.clamp_min(0).sqrt().tolist()
    return found
