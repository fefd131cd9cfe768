"""Resizes crops of any position and size, for a whole batch at once and on any device.

Each image's crop is a pair of small matrices, so that a batch takes two batched matrix products. The
weights are those of Pillow's antialiased bilinear filter: a triangle as wide as the reduction, cut off
at the image's edge, so that the result is the same as resizing the whole image and then cropping it.
"""

import torch
from torch import Tensor


def resample(images: Tensor, boxes: Tensor, mirror: Tensor, size_px: int) -> Tensor:
    """Returns float32 (N, size, size, C): the box of each image, resized, and mirrored if asked for.

    `images` (N, H, W, C) of any type; `boxes` float64 (N, 4): top, left, height, width in pixels,
    within the image; `mirror` bool (N,).
    """
    count, height, width, channels = images.shape
    rows = _weights(boxes[:, 0], boxes[:, 2], height, size_px)
    columns = _weights(boxes[:, 1], boxes[:, 3], width, size_px)
    columns = torch.where(mirror[:, None, None], columns.flip(1), columns)
    pixels = images.float().view(count, height, width * channels)
    tall = torch.bmm(rows, pixels).view(count, size_px, width, channels)
    return torch.einsum("npw,nqwc->nqpc", columns, tall)


def _weights(start: Tensor, length: Tensor, pixels: int, size_px: int) -> Tensor:
    """Returns float32 (N, size, pixels): the weight of each pixel in each resized pixel."""
    step = (length / size_px)[:, None, None]
    radius = step.clamp_min(1.0)  # an enlarged image is interpolated, a reduced one averaged
    places = torch.arange(size_px, device=start.device, dtype=torch.float64)[None, :, None]
    centres = start[:, None, None] + (places + 0.5) * step
    sources = torch.arange(pixels, device=start.device, dtype=torch.float64) + 0.5
    weights = (1 - (sources - centres).abs() / radius).clamp_min(0.0)
    return (weights / weights.sum(dim=2, keepdim=True)).float()
