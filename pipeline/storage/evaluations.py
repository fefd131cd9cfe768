"""Evaluations by key: of those who trained, and of a cluster, whose nodes need the network for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from pipeline.errors import StorageError
from pipeline.paths import FACTS, WEIGHTS
from pipeline.storage.layout import EVALUATIONS, Instance
from pipeline.storage.objects import Storage

NETWORK, TABLES = "network", "tables"
Table = dict[str, NDArray[np.generic]]


class EvaluationStore:
    """The evaluation of one network, by its key."""

    def __init__(self, storage: Storage, key: str) -> None:
        self.key = key
        self._there = Instance(storage, EVALUATIONS, key)

    def put_network(self, folder: Path) -> None:
        """Stores a network where the nodes can find it."""
        files = {name: (folder / name).read_bytes() for name in (WEIGHTS, FACTS)}
        self._there.put(NETWORK, {}, files)

    def fetch_network(self, folder: Path) -> None:
        """Writes the network to a folder; raises StorageError if it is damaged or missing."""
        if (found := self._there.manifest(NETWORK)) is None:
            raise StorageError(f"{self._there.address(NETWORK)}: the network has not been stored")
        for name, digest in found[1].items():
            (folder / name).write_bytes(self._there.object(digest))

    def save(self, tables: Mapping[tuple[str, str], Table], facts: Mapping[str, Any]) -> None:
        """Stores tables by split and view, and facts, all that JSON can say."""
        contents = {f"{split}/{view}": save(table) for (split, view), table in tables.items()}
        self._there.put(TABLES, facts, contents)

    def load(self) -> tuple[dict[tuple[str, str], Table], dict[str, Any]] | None:
        """Returns what `save` stored, or None; raises StorageError if it is damaged."""
        if (manifest := self._there.manifest(TABLES)) is None:
            return None
        facts, objects = manifest
        tables = {}
        for name, digest in objects.items():
            split, _, view = name.partition("/")
            tables[split, view] = load(self._there.object(digest))
        return tables, facts
