"""Prepared data sets on S3, stored by their digest, and copies of them on each node of a cluster."""

import hashlib
import os
import socket
from pathlib import Path

from filelock import FileLock
from safetensors.numpy import load_file

from pipeline.errors import ResourceError, StorageError
from pipeline.storage import node
from pipeline.storage.layout import DATA_SETS, Instance
from pipeline.storage.objects import Storage

PREPARED = "prepared"


class DataSets:
    """The prepared data sets of a project, each by its digest."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def upload(self, digest: str, path: Path) -> None:
        """Stores a data set unless it is already there.

        Photographs that were packed again, as after a move to another place, have the same digest in another file.
        """
        there = Instance(self._storage, DATA_SETS, digest)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        manifest = there.manifest(PREPARED)
        if manifest is None or manifest[1][PREPARED] != sha256:
            self._storage.upload(there.object_key(sha256), path)
            there.put_manifest(PREPARED, {}, {PREPARED: sha256})

    def cached(self, digest: str) -> Path:
        """Returns the data set's file on this node, fetched and checked if it is not there yet.

        Raises StorageError if S3 does not have it or its bytes do not match the digest, and
        ResourceError if they cannot be written to the node's disk.
        """
        there = Instance(self._storage, DATA_SETS, digest)
        if (manifest := there.manifest(PREPARED)) is None:
            raise StorageError(
                f"{there.address(PREPARED)}: not found by this node in S3 at "
                f"{self._storage.place.shown}: the nodes and the machine that runs "
                "`dvc repro` must use the same STUDY_BUCKET and S3"
            )
        sha256 = manifest[1][PREPARED]
        name = hashlib.sha256(f"{digest} {sha256}".encode()).hexdigest()
        path = node.cache_dir() / f"{name}.safetensors"
        with FileLock(node.lock_of(path)):
            try:
                os.utime(path)
            except FileNotFoundError:
                self._fetch(digest, there, sha256, path)
        return path

    def _fetch(self, digest: str, there: Instance, sha256: str, path: Path) -> None:
        from pipeline.data.dataset import content_digest  # torch, which who uploads does not need

        part = path.with_suffix(".part")
        try:
            try:
                self._storage.download(there.object_key(sha256), part)
            except OSError as error:
                raise ResourceError(
                    f"{socket.gethostname()}: {part}: {error.strerror}: free space there, or set "
                    f"{node.CACHE} in the nodes' environment to a folder with room for the data set"
                ) from error
            with part.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            found = content_digest(load_file(part)) if whole else "none: damaged"
            if found != digest:
                raise StorageError(
                    f"{there.address(PREPARED)}: its content has digest {found}, wanted {digest}: "
                    f"delete {there.prefix} there; `dvc repro` uploads it again"
                )
            node.keep(part, path)
        finally:
            part.unlink(missing_ok=True)
