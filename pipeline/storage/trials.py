"""Outcomes of a search's trials on S3, one JSON object each."""

import json
from typing import Any

from pipeline.storage.s3 import Storage


class TrialStore:
    """The trials of one search."""

    def __init__(self, storage: Storage, search_key: str) -> None:
        self._storage = storage
        self._prefix = f"searches/{search_key}/"

    def save(self, trial_key: str, facts: dict[str, Any]) -> None:
        """Stores what is known of a trial."""
        self._storage.put(f"{self._prefix}{trial_key}.json", json.dumps(facts).encode())

    def get(self, trial_key: str) -> dict[str, Any] | None:
        """Returns what is known of a trial, or None; a damaged object counts as none."""
        content = self._storage.get(f"{self._prefix}{trial_key}.json")
        try:
            facts: dict[str, Any] | None = json.loads(content) if content is not None else None
        except ValueError:
            return None
        return facts

    def delete(self, trial_key: str) -> None:
        """Forgets a trial."""
        self._storage.delete(f"{self._prefix}{trial_key}.json")

    def keys(self) -> list[str]:
        """Returns the keys of the trials known so far."""
        names = self._storage.keys(self._prefix)
        return [name.removeprefix(self._prefix).removesuffix(".json") for name in names]
