"""Shards of photographs on S3, and a bounded cache of them on each node.

A shard is there when its facts are: `<shard>.facts` is written after `<shard>.arrow`. On a node a
shard's name is its sha256, so that every study and every process of a user shares them.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from pipeline.data.packing import Packed
from pipeline.data.shards import Shard, sha256
from pipeline.errors import ParamsError, ResourceError, StorageError
from pipeline.storage.datasets import CACHE, cache_dir
from pipeline.storage.s3 import Storage

LIMIT = "STUDY_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
PREFIX, FACTS = "shards/", ".facts"


class ShardStore:
    """The shards of one packing, by its key."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage = storage
        self._prefix = f"{PREFIX}{key}/"

    def done(self) -> set[str]:
        """Returns the names `<split>-<number>` of the shards that are there."""
        keys = self._storage.keys(self._prefix)
        return {Path(key).stem for key in keys if key.endswith(FACTS)}

    def forget(self) -> None:
        """Lets all shards be packed again; they stay until then, for those who read them."""
        keys = self._storage.keys(self._prefix)
        self._storage.delete(*(key for key in keys if key.endswith(FACTS)))

    def put(self, name: str, content: bytes, packed: Packed) -> None:
        """Stores a shard, and then its facts."""
        self._storage.put(PREFIX + packed.shard.key, content)
        self._storage.put(f"{self._prefix}{name}{FACTS}", packed.tensors())

    def get(self, name: str) -> Packed:
        """Returns the facts of a shard that is there."""
        content = self._storage.get(f"{self._prefix}{name}{FACTS}")
        if content is None:
            raise StorageError(
                f"s3://{self._storage.bucket}/{self._prefix}{name}{FACTS}: it was deleted"
            )
        return Packed.parse(content)


class ShardCache:
    """This node's shards; the longest unused go when there are more than `STUDY_CACHE_GB`."""

    def __init__(self, storage: Storage, decoders: int = 1) -> None:
        self._storage, self._process, self.decoders = storage, os.getpid(), decoders
        self._folder = cache_dir() / "shards"
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._limit = _limit_bytes()

    def path(self, shard: Shard) -> Path:
        """Returns the shard's file here, fetched and checked if it is not there yet.

        Raises StorageError where its bytes are not those of the index, ResourceError where the disk
        does not take them.
        """
        path = self._folder / f"{shard.sha256}.arrow"
        with suppress(FileNotFoundError):
            if path.stat().st_size == shard.bytes:
                os.utime(path)
                return path
        with FileLock(path.with_suffix(".lock")):
            if not path.exists() or path.stat().st_size != shard.bytes:
                self._fetch(shard, path)
        return path

    def _fetch(self, shard: Shard, path: Path) -> None:
        if (
            os.getpid() != self._process
        ):  # a loader's process must not share its parent's connections
            self._storage = Storage(self._storage.bucket, patience_s=self._storage.patience_s)
            self._process = os.getpid()
        where = f"s3://{self._storage.bucket}/{PREFIX}{shard.key}"
        content = self._storage.get(PREFIX + shard.key)
        if content is None:
            raise StorageError(
                f"{where}: not there: `dvc repro -f prepare` packs the data set again"
            )
        if (found := sha256(content)) != shard.sha256:
            raise StorageError(
                f"{where}: sha256 {found} ({len(content):,} bytes), expected {shard.sha256} "
                f"({shard.bytes:,} bytes): the shard is damaged: `dvc repro -f prepare` packs the data "
                "set again"
            )
        self._make_room(shard.bytes)
        part = path.with_suffix(".part")
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            raise ResourceError(
                f"{socket.gethostname()}: {part}: {error.strerror}: free space there, lower {LIMIT} or "
                f"set {CACHE} to a folder with room"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        """Deletes the shards that were not used for longest; who has one open keeps it."""
        with FileLock(self._folder / "room.lock"):
            kept = []
            for path in self._folder.glob("*.arrow"):
                with suppress(FileNotFoundError):
                    facts = path.stat()
                    kept.append((facts.st_mtime_ns, facts.st_size, path))
            size = sum(entry[1] for entry in kept) + needed
            for _, some, path in sorted(kept):
                if size <= self._limit:
                    return
                path.unlink(missing_ok=True)
                size -= some


def _limit_bytes() -> float:
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ParamsError(f"{LIMIT}: found {text!r}, wanted a number of gigabytes above 0")
    return limit * 1e9
