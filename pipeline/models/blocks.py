"""The building blocks of figure 2 and section 3.3."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the image size (or halves it); batch norm brings the bias."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


class ShortcutA(nn.Module):
    """Option A: the identity; where dimensions grow, every second pixel and zeros as channels.

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


class PlainBlock(nn.Module):
    """Two 3x3 layers without a shortcut: conv, batch norm, ReLU, twice (section 3.3)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)

    def residual(self, x: Tensor) -> Tensor:
        """Returns F(x) of equation 1, before the addition and the last ReLU."""
        out: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(F(x)); (N, C, H, W) -> (N, C', H/stride, W/stride)."""
        return torch.relu_(self.residual(x))


class BasicBlock(PlainBlock):
    """The residual block of figure 2 with two 3x3 layers: relu(x + F(x)), equation 1."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, stride)
        self.shortcut = ShortcutA(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(x + F(x)); (N, C, H, W) -> (N, C', H/stride, W/stride)."""
        return torch.relu_(self.shortcut(x) + self.residual(x))
