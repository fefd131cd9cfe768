"""What this machine offers the study: cores and memory, within the limits of control groups."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.errors import ParamsError

CPUS = "STUDY_CPUS"
GROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Returns how many cores the study may use: STUDY_CPUS, or else those available to this process.

    The latter are limited by control-group quotas (containers, Slurm), rounded down. Raises ParamsError
    if STUDY_CPUS is not a whole number above 0.
    """
    if text := os.environ.get(CPUS):
        if not text.isdecimal() or int(text) < 1:
            raise ParamsError(f"{CPUS}: found {text!r}, wanted a number of cores above 0")
        return int(text)
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(here or 1, int(_quota())))


def _quota() -> float:
    """Returns how many cores this process's control groups allow; 2**20 if none sets a limit."""
    least = float("inf")
    for folder in _groups():
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                least = min(least, int(quota) / int(period))
    return min(least, 1 << 20)


def free_memory_bytes() -> int:
    """Returns how many bytes of memory the study may still take, by machine and control groups."""
    least = psutil.virtual_memory().available
    for folder in _groups():
        with suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            least = min(least, limit - int((folder / "memory.current").read_text()))
    return least


def _groups() -> Iterator[Path]:
    """Yields the folders of this process's control group (version 2) and of its ancestors."""
    with suppress(OSError):
        name = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        folder = GROUPS / name
        yield folder
        yield from (around for around in folder.parents if around.is_relative_to(GROUPS))
