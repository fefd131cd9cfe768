"""Where a study trains and searches: on this machine, or on the Ray cluster that RAY_ADDRESS names.

A command decides once which of the two it is. Ray is imported only if it is needed: collecting an
existing result does not wait for it.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from pipeline.environment import CLUSTER
from pipeline.params import Study
from pipeline.storage.objects import Storage
from pipeline.training.training import Training
from pipeline.tuning.search import Search

if TYPE_CHECKING:
    from pipeline.execution.there import There


class Place(Protocol):
    """This machine (`pipeline.execution.here`) or a cluster (`pipeline.execution.there`)."""

    def only_one(self, key: str, what: str) -> AbstractContextManager[None]:
        """Keeps other processes off a key while the context lasts; raises BusyError."""

    def require_idle(self, key: str, request: str | None = None) -> None:
        """Raises BusyError if work on a key is under way that another request has begun."""

    def train(self, training: Training) -> None:
        """Runs a training to its end, showing its progress; its result is its last checkpoint."""

    def train_all(self, trainings: Sequence[Training]) -> None:
        """Begins trainings, as many side by side as there is room for; their failures are noted."""

    def search(self, name: str, search: Search) -> None:
        """Runs a search until it is finished, showing its progress."""


def place_of(study: Study, storage: Storage) -> Place:
    """Returns where a study's work is done; no cluster is contacted yet."""
    if (there := named_cluster(study, storage)) is not None:
        return there
    from pipeline.execution.here import Here

    return Here(study, storage)


def named_cluster(study: Study, storage: Storage) -> "There | None":
    """Returns the cluster that RAY_ADDRESS names, or None; it is not contacted yet."""
    if not os.environ.get(CLUSTER):
        return None
    from pipeline.execution.there import There

    return There(study, storage)
