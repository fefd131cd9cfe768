"""The device that trains: its name, what it can do, how its memory is kept."""

import ctypes
import platform
import sys
from pathlib import Path

import torch

from pipeline.errors import ResourceError
from pipeline.models.predict import Precision

# mallopt's parameters (malloc.h): the size from which memory is mapped afresh, and how much free
# memory at the top of the heap goes back to the system
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def hardware() -> str:
    """Returns the accelerator's or the processor's name and the number of threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def require(precision: Precision, key: str) -> None:
    """Raises ResourceError where the device lacks the precision that `key` of params.yaml names."""
    if precision == "float32":
        return
    if torch.cuda.is_available():
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # convolutions, not only tensors
    if not able:
        raise ResourceError(
            f"params.yaml: {key} is {precision}, but {hardware()} has no {precision} arithmetic: set "
            "it to float32, or train on another machine"
        )


def keep_freed_memory() -> None:
    """Lets the C library keep up to 1 GiB of freed memory for the next update.

    Activations are freed and taken again in every update; glibc gives such sizes back to the system,
    and its pages are then cleared and mapped anew: 2 to 10 % of an update (docs/adr/0008).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
