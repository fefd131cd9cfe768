"""Evaluations by the key of what determines them; torch is not needed to collect one."""

from collections.abc import Sequence
from typing import Any

from pipeline.evaluation.tables import Evaluation
from pipeline.params import Row, canonical_sha256
from pipeline.storage.evaluations import EvaluationStore
from pipeline.training.identity import KEY_LENGTH, computing


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
    family = f"pipeline.models.families.{row.network.family}"
    source = computing("pipeline.evaluation.whole", family)
    return canonical_sha256({**what, "network": network, "source": source})[:KEY_LENGTH]


def save(store: EvaluationStore, found: Evaluation) -> None:
    """Stores an evaluation."""
    store.save(found.tables, {"responses": found.responses, "costs": found.costs})


def stored(store: EvaluationStore) -> Evaluation | None:
    """Returns what `save` stored, or None; raises StorageError if it is damaged."""
    if (found := store.load()) is None:
        return None
    tables, facts = found
    return Evaluation(tables, **facts)
