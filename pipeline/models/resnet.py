"""Builds a network of the table."""

import torch
from torch import Tensor, nn

from pipeline.models.archs import Arch
from pipeline.models.blocks import BasicBlock, PlainBlock, conv3x3


class ResNet(nn.Module):
    """The CIFAR network of section 4.2, residual or plain.

    A 3x3 convolution, three stages of blocks at full, half and quarter size, global average
    pooling and one fully connected layer. (N, channels, H, W) -> logits (N, classes).
    """

    def __init__(self, arch: Arch, channels: int, classes: int) -> None:
        super().__init__()
        block = PlainBlock if arch.shortcut == "none" else BasicBlock
        width = arch.widths[0]
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        stages = []
        for stage, (blocks, width_out) in enumerate(zip(arch.layers, arch.widths, strict=True)):
            layers: list[nn.Module] = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(width, width_out, stride))
                width = width_out
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, classes) of float images (N, channels, H, W), mean subtracted."""
        features = self.stages(torch.relu_(self.bn1(self.conv1(images))))
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


def build(arch: Arch, channels: int, classes: int, seed: int) -> ResNet:
    """Returns the network with weights that depend on `seed` alone.

    Convolutions and the classifier are drawn from N(0, 2 / fan_in), biases are zero ("PReLU"
    paper, arXiv 1502.01852, equation 10), batch norms start as the identity.
    """
    model = ResNet(arch, channels, classes)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.to(memory_format=torch.channels_last)


def parameter_count(model: nn.Module) -> int:
    """Returns the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
