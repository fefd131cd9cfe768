"""Shards of photographs on S3, and copies of them on each node.

A shard counts as stored once its manifest is. Its name is its sha256, on S3 and on a node, so that all
studies and processes of a user share the node's copies.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from pipeline.data.feeding.shards import Shard
from pipeline.data.sources.packing import Packed
from pipeline.errors import ResourceError, StorageError, UnreachableError
from pipeline.storage import node
from pipeline.storage.layout import SHARDS, Instance, Instances
from pipeline.storage.objects import Storage

SHARD, FACTS = "shard", "facts"


class ShardStore:
    """The shards of the current instance of a packing, by the packing's key."""

    def __init__(self, storage: Storage, key: str) -> None:
        number = Instances(storage, SHARDS, key).current()
        self._there = Instance(storage, SHARDS, key, number)

    def done(self) -> set[str]:
        """Returns the names `<split>-<number>` of the shards that are stored."""
        return set(self._there.names())

    def put(self, name: str, content: bytes, packed: Packed) -> None:
        """Stores a shard and its facts, and then the manifest that names them."""
        self._there.put(name, {}, {SHARD: content, FACTS: packed.tensors()})

    def get(self, name: str) -> Packed:
        """Returns the facts of a stored shard; raises StorageError if they are damaged or deleted."""
        if (found := self._there.manifest(name)) is None:
            raise StorageError(f"{self._there.address(name)}: it was deleted")
        return Packed.parse(self._there.object(found[1][FACTS]))


class ShardCache:
    """This node's shards (`pipeline.storage.node` bounds them)."""

    def __init__(self, storage: Storage, decoders: int = 1) -> None:
        self._storage, self._process, self.decoders = storage, os.getpid(), decoders
        self._folder = node.cache_dir() / node.SHARDS
        self._folder.mkdir(exist_ok=True, mode=0o700)
        node.limit_bytes()  # refused here rather than in mid-training

    def path(self, shard: Shard) -> Path:
        """Returns the shard's file here, fetched and checked if it is not there yet.

        Raises StorageError if S3 does not have the bytes that the index asks for, and ResourceError if
        they cannot be written to the disk.
        """
        path = self._folder / f"{shard.sha256}.arrow"
        with suppress(FileNotFoundError):
            if path.stat().st_size == shard.bytes:
                os.utime(path)
                return path
        with FileLock(node.lock_of(path)):
            if not path.exists() or path.stat().st_size != shard.bytes:
                self._fetch(shard, path)
        return path

    def _fetch(self, shard: Shard, path: Path) -> None:
        if (
            os.getpid() != self._process
        ):  # a loader's process must not share its parent's connections
            self._storage = Storage(self._storage.bucket, patience_s=self._storage.patience_s)
            self._process = os.getpid()
        content = self._content(shard)
        node.make_room(shard.bytes)
        part = path.with_suffix(".part")
        try:
            part.write_bytes(content)
            node.keep(part, path)
        except OSError as error:
            raise ResourceError(
                f"{socket.gethostname()}: {part}: {error.strerror}: free space there, lower {node.LIMIT} or "
                f"set {node.CACHE} to a folder with room"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _content(self, shard: Shard) -> bytes:
        """Returns a shard's bytes from the last instance of its packing that has them intact."""
        failure = None
        for number in reversed(Instances(self._storage, SHARDS, shard.key).numbers() or [1]):
            try:
                return Instance(self._storage, SHARDS, shard.key, number).object(shard.sha256)
            except UnreachableError:
                raise
            except StorageError as error:
                failure = failure or error
        raise StorageError(
            f"{failure} ({shard.bytes:,} bytes): the shard is damaged or was deleted: "
            "`make again RUN=prepare` packs the data set again"
        )
