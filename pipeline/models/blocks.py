"""The building blocks of figures 2 and 5 and the shortcuts of section 3.3."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the image size (or halves it); batch norm provides the bias."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def conv1x1(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution; batch norm provides the bias."""
    return nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)


class ShortcutA(nn.Module):
    """Option A: the identity; where dimensions grow, every second pixel, and zeros as the new channels.

    Shape: (N, C, H, W) -> (N, `channels_out`, ceil(H / stride), ceil(W / stride)). No parameters.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shortcut of `x`."""
        if self.stride == 1 and self.extra == 0:
            return x
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Projection(nn.Module):
    """A 1x1 convolution with batch norm, the projection W_s of equation 2.

    Shape: (N, C, H, W) -> (N, `channels_out`, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = conv1x1(channels_in, channels_out, stride)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shortcut of `x`."""
        projected: Tensor = self.bn(self.conv(x))
        return projected


def shortcut(option: str, channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """Returns the shortcut of a block by the paper's option (section 3.3, "Residual Network").

    A: identity, padded with zeros where dimensions grow; B: projections there, the identity
    elsewhere; C: projections everywhere.
    """
    grows = stride != 1 or channels_in != channels_out
    if option == "C" or (option == "B" and grows):
        return Projection(channels_in, channels_out, stride)
    return ShortcutA(channels_in, channels_out, stride)


class PlainBlock(nn.Module):
    """Two 3x3 layers without a shortcut: conv, batch norm, ReLU, twice (section 3.3)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)

    def residual(self, x: Tensor) -> Tensor:
        """Returns F(x) of equation 1, before the addition and the last ReLU."""
        out: Tensor = self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(F(x)); (N, C, H, W) -> (N, width, H/stride, W/stride)."""
        return torch.relu_(self.residual(x))


class BasicBlock(PlainBlock):
    """The residual block of figure 5 left, two 3x3 layers: relu(x + F(x)), equation 1."""

    def __init__(self, channels_in: int, width: int, stride: int, option: str) -> None:
        super().__init__(channels_in, width, stride, option)
        self.shortcut = shortcut(option, channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(x + F(x)); (N, C, H, W) -> (N, width, H/stride, W/stride)."""
        return torch.relu_(self.residual(x).add_(self.shortcut(x)))


class Bottleneck(nn.Module):
    """The residual block of figure 5 right: 1x1, 3x3, 1x1, four times as wide at its end.

    The stride is in the first 1x1 convolution, as in the authors' release; torchvision has it in
    the 3x3 (4.1 instead of 3.8 billion multiply-adds at 50 layers).
    """

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = conv1x1(channels_in, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, self.expansion * width)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.shortcut = shortcut(option, channels_in, self.expansion * width, stride)

    def residual(self, x: Tensor) -> Tensor:
        """Returns F(x) of equation 1, before the addition and the last ReLU."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = torch.relu_(self.bn2(self.conv2(out)))
        widened: Tensor = self.bn3(self.conv3(out))
        return widened

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(x + F(x)); (N, C, H, W) -> (N, 4 width, H/stride, W/stride)."""
        return torch.relu_(self.residual(x).add_(self.shortcut(x)))
