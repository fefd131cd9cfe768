"""Evaluations on S3 by the key of what determines them; torch is not needed to collect one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from pipeline.errors import StorageError
from pipeline.evaluation.tables import Evaluation
from pipeline.params import Row, canonical_sha256
from pipeline.paths import FACTS, WEIGHTS
from pipeline.storage.layout import EVALUATIONS, Instance
from pipeline.storage.objects import Storage
from pipeline.training.identity import KEY_LENGTH, computing

NETWORK, TABLES = "network", "tables"


def what_is_evaluated(row: Row, data: str, scales_px: Sequence[int] | None) -> dict[str, Any]:
    """Returns all that determines an evaluation but the network and the source; `data` by its digest."""
    return {
        "data": data,
        "scales_px": list(scales_px or ()),
        "crop_px": row.crop_px,
        "precision": row.precision,
        "threads": row.threads,
    }


def key_of(row: Row, what: dict[str, Any], network: str) -> str:
    """Returns the key of an evaluation of the network whose weights have the sha256 `network`."""
    return canonical_sha256({**what, "network": network, "source": source_of(row)})[:KEY_LENGTH]


def source_of(row: Row) -> str:
    """Returns the digest of the source that evaluates; who asks before it is needed gets that of its beginning, by
    which it computes, whatever is edited meanwhile."""
    return computing("pipeline.evaluation.whole", f"pipeline.models.families.{row.network.family}")


class EvaluationStore:
    """The evaluation of one network, by its key, and the network where a cluster's nodes need it."""

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
        if found[1].keys() != {WEIGHTS, FACTS}:  # names from S3 are not paths here
            raise StorageError(
                f"{self._there.address(NETWORK)}: names {sorted(found[1])}, wanted {WEIGHTS} and {FACTS}"
            )
        for name in (WEIGHTS, FACTS):
            (folder / name).write_bytes(self._there.object(found[1][name]))

    def save(self, found: Evaluation) -> None:
        """Stores an evaluation."""
        contents = {f"{split}/{view}": save(table) for (split, view), table in found.tables.items()}
        facts = {"responses": found.responses, "costs": found.costs}
        self._there.put(TABLES, facts, contents)

    def exists(self) -> bool:
        """Tells whether an evaluation has been stored."""
        return self._there.manifest(TABLES) is not None

    def load(self) -> Evaluation | None:
        """Returns what `save` stored, or None; raises StorageError if it is damaged."""
        if (manifest := self._there.manifest(TABLES)) is None:
            return None
        facts, objects = manifest
        tables = {}
        for name, digest in objects.items():
            split, _, view = name.partition("/")
            tables[split, view] = load(self._there.object(digest))
        return Evaluation(tables, **facts)
