"""A node's copies of data sets and shards: bounded, whichever processes of the user share them.

Beyond `STUDY_CACHE_GB`, or what the disk has room for, the least recently used are deleted; processes with an open file can go on reading it.
"""

import os
import shutil
from contextlib import suppress
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import ParamsError, ResourceError
from pipeline.files import private_folder

CACHE, LIMIT = "STUDY_CACHE_DIR", "STUDY_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
LEFT_FREE_BYTES = 1e9  # on the disk, for others
SHARDS = "shards"  # a folder of it
NAME = "[0-9a-f]" * 64  # a digest: whatever else lies in the folder is not ours
COPIES = (f"{NAME}.safetensors", f"{SHARDS}/{NAME}.arrow")
PARTS = (f"{NAME}.part", f"{SHARDS}/{NAME}.part")


def cache_dir() -> Path:
    """Returns this node's cache: `STUDY_CACHE_DIR`, or else a private temporary folder of the user.

    Raises ResourceError if it is another user's, who could put other data there; root's is that of a container.
    """
    if not (chosen := os.environ.get(CACHE)):
        return private_folder()
    path = Path(chosen)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_uid not in (os.getuid(), 0):
        raise ResourceError(
            f"{path} ({CACHE}): it belongs to another user: set {CACHE} to a folder of your own"
        )
    return path


def make_room(needed: int) -> None:
    """Deletes the least recently used copies until `needed` more bytes stay within the limit."""
    with FileLock(cache_dir() / "room.lock"):
        _evict(needed)


def keep(part: Path, path: Path) -> None:
    """Makes a file that has just been written a copy, within the limit whoever else does so at the same moment.

    Also deletes what processes that were killed had begun to write.
    """
    with FileLock(cache_dir() / "room.lock"):
        for other in chain.from_iterable(cache_dir().glob(pattern) for pattern in PARTS):
            if other != part:
                with suppress(Timeout), FileLock(lock_of(other), timeout=0):
                    other.unlink(missing_ok=True)
        _evict(part.stat().st_size)
        part.replace(path)


def lock_of(path: Path) -> Path:
    """Returns the lock that who writes a copy holds."""
    return path.with_suffix(".lock")


def _evict(needed: int) -> None:
    limit, kept = limit_bytes(), []
    for path in chain.from_iterable(cache_dir().glob(pattern) for pattern in COPIES):
        with suppress(FileNotFoundError):
            facts = path.stat()
            kept.append((facts.st_mtime_ns, facts.st_size, path))
    here = sum(entry[1] for entry in kept)
    limit = min(limit, here + shutil.disk_usage(cache_dir()).free - LEFT_FREE_BYTES)
    size = here + needed
    for _, some, path in sorted(kept):
        if size <= limit:
            return
        path.unlink(missing_ok=True)
        size -= some


def limit_bytes() -> float:
    """Returns the limit; raises ParamsError."""
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ParamsError(f"{LIMIT}: found {text!r}, wanted a number of gigabytes above 0")
    return limit * 1e9
