"""What a cluster computed of a network, on S3 beside the network itself."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from pipeline.data.shards import sha256
from pipeline.errors import StorageError
from pipeline.models.weights import FACTS, WEIGHTS
from pipeline.storage.s3 import Storage

DONE = "done.json"
Table = dict[str, NDArray[np.generic]]


class EvaluationStore:
    """The evaluation of one network, by its key; it is there when `done.json` is."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._prefix = storage, f"evaluations/{key}/"

    def put_network(self, folder: Path) -> None:
        """Stores a network where the nodes find it."""
        for name in (WEIGHTS, FACTS):
            self._storage.upload(self._prefix + name, folder / name)

    def fetch_network(self, folder: Path) -> None:
        """Writes the network to a folder; who loads it checks its sha256."""
        for name in (WEIGHTS, FACTS):
            self._storage.download(self._prefix + name, folder / name)

    def save(self, tables: Mapping[tuple[str, str], Table]) -> None:
        """Stores tables by split and view, and then their checksums."""
        sums = {}
        for (split, view), table in tables.items():
            content = save(table)
            self._storage.put(f"{self._prefix}{split}/{view}.safetensors", content)
            sums[f"{split}/{view}"] = sha256(content)
        self._storage.put(self._prefix + DONE, json.dumps(sums).encode())

    def tables(self) -> dict[tuple[str, str], Table] | None:
        """Returns what `save` stored, or None; raises StorageError where it is damaged."""
        if (done := self._storage.get(self._prefix + DONE)) is None:
            return None
        found = {}
        for name, wanted in json.loads(done).items():
            key = f"{self._prefix}{name}.safetensors"
            content = self._storage.get(key) or b""
            if (is_now := sha256(content)) != wanted:
                raise StorageError(
                    f"s3://{self._storage.bucket}/{key}: sha256 {is_now}, expected {wanted}: delete "
                    f"{self._prefix}{DONE}; `dvc repro` evaluates the network again"
                )
            split, _, view = name.partition("/")
            found[split, view] = load(content)
        return found

    def clear(self) -> None:
        """Forgets the evaluation."""
        self._storage.delete(self._prefix + DONE, *self._storage.keys(self._prefix))
