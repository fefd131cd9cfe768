"""What this machine offers the study: cores and memory, within the limits of control groups."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.errors import ParamsError

CPUS = "STUDY_CPUS"
GROUPS = Path("/sys/fs/cgroup")
MEMORY = (  # of control groups of version 2 and 1: limit, use, and what is in it of files that can be read again
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)  # fmt: skip


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
        with suppress(OSError, ValueError):  # version 1
            quota = (folder / "cpu.cfs_quota_us").read_text()
            if int(quota) > 0:
                least = min(least, int(quota) / int((folder / "cpu.cfs_period_us").read_text()))
    return min(least, 1 << 20)


def free_memory_bytes() -> int:
    """Returns how many bytes of memory the study may still take, by machine and control groups."""
    least = psutil.virtual_memory().available
    for folder in _groups():
        for most, used, cached in MEMORY:
            with suppress(OSError, ValueError):
                limit = int((folder / most).read_text())
                free = limit - int((folder / used).read_text()) + _cached(folder, cached)
                least = min(least, free)
    return least


def _cached(folder: Path, names: tuple[str, ...]) -> int:
    lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return sum(int(value) for name, value in lines if name in names)


def _groups() -> Iterator[Path]:
    """Yields the folders of this process's control groups and of their ancestors.

    Those of version 2 lie in one tree, those of version 1 in one for each controller.
    """
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            roots = [GROUPS / one for one in controllers.split(",")] if controllers else [GROUPS]
            for root in roots:
                # in a container of version 1 it is not there, but the root is
                folder = root / name.lstrip("/")
                yield folder
                yield from (around for around in folder.parents if around.is_relative_to(root))
