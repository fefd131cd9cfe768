"""Checkpoints of unfinished trainings on S3, under the run key.

Two objects each: `<update>.safetensors`, then `<update>.json` with its sha256. Writing the JSON is
the commit: what was killed before it never happened. The last two are kept.
"""

import hashlib
import json
import sys
from typing import Any

from pipeline.errors import StorageError
from pipeline.storage.s3 import Storage

KEPT = 2


class CheckpointStore:
    """The checkpoints of one training; `notes` go into the facts of each that is saved."""

    def __init__(self, storage: Storage, key: str, notes: dict[str, str] | None = None) -> None:
        self._storage = storage
        self._notes = notes or {}
        self._prefix = f"trainings/{key}/"

    def _committed(self) -> list[str]:
        return [key for key in self._storage.keys(self._prefix) if key.endswith(".json")]

    def _facts(self, key: str) -> dict[str, Any] | None:
        """Returns the JSON at a key; None where it was deleted since, or is cut off."""
        content = self._storage.get(key)
        try:
            facts: dict[str, Any] | None = json.loads(content) if content is not None else None
        except ValueError:
            self._warn(f"s3://{self._storage.bucket}/{key} is damaged")
            return None
        return facts

    def _warn(self, what: str) -> None:
        print(f"warning: {what}: going on from the checkpoint before", file=sys.stderr, flush=True)

    def facts(self) -> dict[str, Any] | None:
        """Returns the facts of the last committed checkpoint (its history among them), or None."""
        found = (self._facts(key) for key in reversed(self._committed()))
        return next((facts for facts in found if facts is not None), None)

    def latest(self) -> tuple[bytes, dict[str, Any]] | None:
        """Returns (tensors, facts) of the last committed checkpoint that is whole, or None.

        A damaged one is passed over with a warning. Raises StorageError where all are damaged.
        """
        damaged = ""
        for key in reversed(self._committed()):
            facts = self._facts(key)
            if facts is None:
                continue
            tensors_key = self._tensors_key(facts["update"])
            tensors = self._storage.get(tensors_key)
            found = hashlib.sha256(tensors or b"").hexdigest()
            if tensors is not None and found == facts["sha256"]:
                return tensors, facts
            damaged = (
                f"s3://{self._storage.bucket}/{tensors_key}: sha256 {found}, expected "
                f"{facts['sha256']}"
            )
            self._warn(damaged)
        if damaged:
            raise StorageError(
                f"{damaged}: no earlier checkpoint is whole: `dvc repro -f train@<row>` trains afresh"
            )
        return None

    def save(self, tensors: bytes, facts: dict[str, Any]) -> None:
        """Commits a checkpoint and drops those before the last two."""
        update = facts["update"]
        self._storage.put(self._tensors_key(update), tensors)
        facts = {**facts, **self._notes, "sha256": hashlib.sha256(tensors).hexdigest()}
        self._storage.put(self._facts_key(update), json.dumps(facts).encode())
        for key in self._committed()[:-KEPT]:
            self._storage.delete(key, key.removesuffix(".json") + ".safetensors")

    def clear(self) -> None:
        """Forgets the training."""
        keys = self._storage.keys(self._prefix)
        self._storage.delete(*sorted(keys, key=lambda key: not key.endswith(".json")))

    def _tensors_key(self, update: int) -> str:
        return f"{self._prefix}{update:08d}.safetensors"

    def _facts_key(self, update: int) -> str:
        return f"{self._prefix}{update:08d}.json"
