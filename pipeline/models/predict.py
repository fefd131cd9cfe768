"""Forward passes in a named precision; logits of images as they are."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
EVALUATION_BATCH = 500


def device() -> torch.device:
    """Returns the device of this machine: its GPU where it has one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a forward pass runs; weights and sums stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@torch.inference_mode()
def predict(
    model: nn.Module, images: Tensor, mean: Tensor, precision: Precision
) -> Iterator[Tensor]:
    """Yields float32 logits (n, classes), batch by batch, in order and in evaluation mode.

    `images` uint8 (N, H, W, C) are used as they are (section 4.2: the single view of the original
    32x32 image), less `mean` float32 (H, W, C).
    """
    training = model.training
    model.eval()
    for batch in torch.split(images, EVALUATION_BATCH):
        with autocast(precision, batch.device):
            yield model((batch - mean).permute(0, 3, 1, 2)).float()
    model.train(training)
