"""Forward passes: in which precision, on which device, and how their memory is kept."""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from pipeline.params import Precision

# mallopt's parameters (malloc.h): how much free memory at the top of the heap is kept before it goes
# back to the system, and the size from which memory is mapped separately
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def device() -> torch.device:
    """Returns the device of this machine: its GPU if it has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a forward pass runs; weights and sums stay float32.

    `tf32` rounds the factors in a GPU's convolutions and matrix products to ten bits of mantissa;
    `float32` does not, whatever torch's default is. The backward pass uses the last forward pass's
    setting.
    """
    if device.type == "cuda":
        arithmetic = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cudnn.conv.fp32_precision = arithmetic  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = arithmetic
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@torch.inference_mode()
def predict(model: nn.Module, inputs: Iterable[Tensor], precision: Precision) -> Iterator[Tensor]:
    """Yields float32 logits (n, classes) of each batch, in evaluation mode.

    `inputs` are float32 (n, C, H, W), mean subtracted.
    """
    training = model.training
    model.eval()
    for batch in inputs:
        with autocast(precision, batch.device):
            yield model(batch).float()
    model.train(training)


def keep_freed_memory() -> None:
    """Lets the C library keep up to 1 GiB of freed memory for the next batch.

    Activations are freed and allocated again for every batch. By default, glibc returns blocks of such
    sizes to the system, so that their pages are cleared and mapped anew: this takes 2 to 10 % of an
    update of a small network (docs/adr/0008) and a third of the evaluation of photographs.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
