"""What this machine gives to the study: cores and memory, as control groups allow."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.errors import ParamsError

CPUS = "STUDY_CPUS"
GROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Returns how many cores the study may use: STUDY_CPUS, else those of this process.

    A control group's quota counts (containers, Slurm), rounded down. Raises ParamsError.
    """
    if text := os.environ.get(CPUS):
        if not text.isdecimal() or int(text) < 1:
            raise ParamsError(f"{CPUS}: found {text!r}, wanted a number of cores above 0")
        return int(text)
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(here or 1, int(_quota())))


def _quota() -> float:
    """Returns how many cores this process's control groups allow for; infinity where none limits."""
    least = float("inf")
    for folder in _groups():
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                least = min(least, int(quota) / int(period))
    return min(least, 1 << 20)


def free_memory_bytes() -> int:
    """Returns how much memory processes of the study may still take, by machine and control group."""
    least = psutil.virtual_memory().available
    for folder in _groups():
        with suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            least = min(least, limit - int((folder / "memory.current").read_text()))
    return least


def _groups() -> Iterator[Path]:
    """Yields the folders of this process's control group (version 2) and of those around it."""
    with suppress(OSError):
        name = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        folder = GROUPS / name
        yield folder
        yield from (around for around in folder.parents if around.is_relative_to(GROUPS))
