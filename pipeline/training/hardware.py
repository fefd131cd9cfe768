"""Names the device that trains, to stand beside every figure."""

import platform
from pathlib import Path

import torch


def hardware() -> str:
    """Returns the accelerator's or the processor's name and the number of threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
