"""Builds a network of the table in `pipeline.models.archs`."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.models.archs import Arch
from pipeline.models.blocks import BasicBlock, Bottleneck, PlainBlock, conv3x3
from pipeline.models.recompute import Recomputed

BLOCKS: dict[str, type[PlainBlock | BasicBlock | Bottleneck]] = {
    "plain": PlainBlock,
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}
STEMS: dict[str, Callable[[int, int], tuple[nn.Module, nn.Module]]] = {
    "3x3": lambda channels, width: (conv3x3(channels, width), nn.Identity()),
    "7x7": lambda channels, width: (
        nn.Conv2d(channels, width, 7, 2, padding=3, bias=False),
        nn.MaxPool2d(3, 2, padding=1),
    ),
}


M = TypeVar("M", bound=nn.Module)


class ResNet(nn.Module):
    """A network of Table 1 or section 4.2, residual or plain.

    The stem, stages of blocks of which all but the first halve the image, global average pooling
    and one fully connected layer. (N, channels, H, W) -> logits (N, classes), for any H and W.
    With `recompute`, blocks keep only their inputs for the backward pass.
    """

    def __init__(self, arch: Arch, channels: int, classes: int, *, recompute: bool = False) -> None:
        super().__init__()
        block, width_in = BLOCKS[arch.block], arch.widths[0]
        self.conv1, self.pool = STEMS[arch.stem](channels, width_in)
        self.bn1 = nn.BatchNorm2d(width_in)
        stages = []
        for stage, (count, width) in enumerate(zip(arch.layers, arch.widths, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(width_in, width, stride, arch.shortcut))
                width_in = block.expansion * width
            stages.append(Recomputed(*blocks) if recompute else nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(width_in, classes)
        self.stride = (4 if arch.stem == "7x7" else 1) * 2 ** (len(arch.layers) - 1)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the output of each stage, for detection and segmentation: C2 to C5 of Table 1.

        Strides are 4, 8, 16 and 32 with the 7x7 stem; 1, 2 and 4 (C2 to C4) with the 3x3 stem.
        """
        x = self.pool(torch.relu_(self.bn1(self.conv1(images))))
        found = {}
        for number, stage in enumerate(self.stages, start=2):
            x = stage(x)
            found[f"C{number}"] = x
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, classes) of float images (N, channels, H, W), mean subtracted."""
        *_, features = self.features(images).values()
        return self.classified(features.float().mean(dim=(2, 3)))

    def classified(self, pooled: Tensor) -> Tensor:
        """Returns logits float32 (N, classes) of pooled features float32 (N, width).

        The classifier computes in float32 whatever the precision of the convolutions: many bfloat16
        logits would be equal.
        """
        return in_float32(self.fc, pooled)


def in_float32(layer: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Returns what a layer gives for inputs float32, computed in float32 in whatever precision the network is."""
    where = inputs.device.type
    if torch.amp.is_autocast_available(where) and torch.is_autocast_enabled(where):
        with torch.autocast(where, enabled=False):
            return layer(inputs)
    return layer(inputs)


def drawn(model: M, seed: int | None) -> M:
    """Returns the network with weights that depend on `seed` alone; without one, they stay as they are.

    Convolutions and the classifier are drawn from N(0, 2 / fan_in), biases are zero ("PReLU"
    paper, arXiv 1502.01852, equation 10), batch norms start as the identity.
    """
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model.to(memory_format=torch.channels_last)
