"""The device that trains: its name and what it can do."""

import os
import platform
from pathlib import Path

import torch

from pipeline.errors import ResourceError
from pipeline.params import Precision


def hardware() -> str:
    """Returns the accelerator's name, or the processor's with its instruction set.

    Processors with the same name may differ in their instruction sets, and so in the last bits of sums.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name} with {torch.backends.cpu.get_cpu_capability()}"


def make_repeatable(device: torch.device) -> None:
    """Makes a GPU compute the same bits each time, as a CPU does: sums are always taken in one order.

    torch warns about an operation that has no such algorithm there. Call it before the first operation.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at cuBLAS's first use
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a debugging aid


def require(precision: Precision, key: str) -> None:
    """Raises ResourceError if the device lacks the precision that `key` of params.yaml asks for."""
    if precision == "float32":
        return
    if precision == "tf32":
        able = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    elif torch.cuda.is_available():
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # for convolutions, not just tensors
    if not able:
        raise ResourceError(
            f"params.yaml: {key} is {precision}, but {hardware()} has no {precision} arithmetic: set "
            "it to float32, or train on another machine"
        )
