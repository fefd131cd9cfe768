"""What a training is made of, and how a checkpoint is known to be its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.params import Row
from pipeline.training.identity import what_is_trained
from pipeline.training.schedule import Schedule


def _differences(found: Any, wanted: Any, place: str) -> Iterator[str]:
    """Yields what differs between two documents, each by its key."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        if found != wanted:
            yield f"{place} is {wanted}, the checkpoint has {found}"
        return
    for key in sorted(found.keys() | wanted.keys()):
        inner = place if key == "row" else f"{place}.{key}"
        yield from _differences(found.get(key), wanted.get(key), inner)


def _trained(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint is of; before rows named their threads, those of the machine counted."""
    trained: dict[str, Any] = facts["trained"]
    return {**trained, "row": {"threads": facts["threads"], **trained["row"]}}


@dataclass(frozen=True)
class TrainJob:
    """All that determines a training; `arrays` is the prepared data set's file.

    `started` is the time (seconds since 1970) at which this attempt began, for wall_seconds. To train the
    same key afresh is another `instance` of it. `kind` says where it is kept; a trial of a search trains
    only `until` an update, and further later.
    """

    name: str
    key: str
    row: Row
    schedule: Schedule
    arrays: Path
    started: float
    instance: int = 1
    kind: str = "trainings"
    until: int | None = None

    def is_of(self, facts: dict[str, Any], data_digest: str) -> bool:
        """Tells whether a checkpoint is of this row, schedule and data, by whatever code and threads."""
        wanted = what_is_trained(self.row, self.schedule, data_digest)
        found, same = facts["trained"], {"threads": self.row.threads}
        return {**found, "row": {**found["row"], **same}} == wanted

    def check(self, facts: dict[str, Any], data_digest: str) -> None:
        """Raises CheckpointError where a checkpoint is not of this training."""
        wanted = what_is_trained(self.row, self.schedule, data_digest)
        if facts["key"] != self.key or _trained(facts) != wanted:
            differ = "; ".join(_differences(_trained(facts), wanted, f"models.{self.name}"))
            raise CheckpointError(
                f"{self.name}: the checkpoint under {self.key} belongs to another training "
                f"({facts['name']}, key {facts['key']}): {differ or 'its key differs'}: change "
                f"params.yaml or STUDY_CONTINUE, or `make again RUN={self.name}` trains afresh"
            )
