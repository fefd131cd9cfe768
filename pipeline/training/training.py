"""What a training is, resolved once: row, schedule and data, and their key and instance."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from pipeline import attested
from pipeline.checkpoint import CheckpointFacts
from pipeline.errors import CheckpointError, DataError, StudyError
from pipeline.params import Row
from pipeline.training.identity import CONTINUE, run_key, source_of, what_is_trained
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


def _trained(facts: CheckpointFacts) -> dict[str, Any]:
    """Returns what a checkpoint was trained from; if its row names no threads, those it used count."""
    return {**facts.trained, "row": {"threads": facts.threads, **facts.trained["row"]}}


@dataclass(frozen=True)
class Training:
    """All that determines a training, `data` by its digest, but not where and when it runs.

    Training the same key afresh makes another `instance` of it; `overridden` says that the user chose
    the key. `kind` says where it is stored; a trial of a search trains only `until` an update, and may
    go on later.
    """

    name: str
    row: Row
    schedule: Schedule
    data: str
    key: str
    overridden: bool = False
    instance: int = 1
    kind: str = "trainings"
    until: int | None = None

    @classmethod
    def of(cls, name: str, row: Row, schedule: Schedule, data: str) -> Self:
        """Returns the training of a row on the data with a digest, under its key."""
        return cls(name, row, schedule, data, *run_key(name, row, schedule, data))

    def require_source(self) -> None:
        """Raises StudyError if the source is not that by which the key was made: it was edited since."""
        present, _ = run_key(self.name, self.row, self.schedule, self.data)
        if not self.overridden and present != self.key:
            raise StudyError(
                f"{self.name}: the code was edited after this training was asked for (key {self.key}): `dvc repro` "
                "again trains it by the edited code"
            )

    @property
    def recipe(self) -> dict[str, Any]:
        """Row, schedule and data as a document, as its checkpoints record it."""
        return what_is_trained(self.row, self.schedule, self.data)

    @property
    def last_update(self) -> int:
        """The schedule's last update, or a trial's last for now."""
        return self.until or self.schedule.total_updates

    def is_of(self, facts: CheckpointFacts) -> bool:
        """Tells whether a checkpoint is of this row, schedule and data, by whatever code and threads."""
        found, same = facts.trained, {"threads": self.row.threads}
        return {**found, "row": {**found["row"], **same}} == self.recipe

    def check(self, facts: CheckpointFacts) -> None:
        """Raises CheckpointError for a checkpoint of another training, or by source not shown equal."""
        if facts.key != self.key or _trained(facts) != self.recipe:
            differ = "; ".join(_differences(_trained(facts), self.recipe, f"models.{self.name}"))
            raise CheckpointError(
                f"{self.name}: the checkpoint under {self.key} belongs to another training "
                f"({facts.name}, key {facts.key}): {differ or 'its key differs'}: change "
                f"params.yaml or STUDY_CONTINUE, or `make again RUN={self.name}` trains afresh"
            )
        if not self.overridden and (why := self.unlike(facts)):
            raise CheckpointError(
                f"{self.name}: the checkpoint under {self.key} was computed {why}: `make attest` on such a "
                f"machine may show it, {CONTINUE}={self.name}={self.key} accepts it unproven, "
                f"and `make again RUN={self.name}` trains afresh"
            )

    def unlike(self, facts: CheckpointFacts) -> str:
        """Returns which source computed a checkpoint if it was not shown to equal the present one.

        This is shown for one kind of device at a time (docs/adr/0016); '' if it was shown for the
        checkpoint's.
        """
        present = source_of(self.row, self.schedule)
        then = facts.source or present  # recorded since 2026-11-25
        if attested.oldest(then, facts.device) == attested.oldest(present, facts.device):
            return ""
        return (
            f"on {facts.device} by source {then[:12]}, and the present source, {present[:12]}, was not shown "
            f"to compute the same on {facts.device}"
        )

    def require_data(self, digest: str) -> None:
        """Raises DataError if a data set is not this training's."""
        if digest != self.data:
            raise DataError(
                f"{self.name}: the data set is {digest[:12]}, but the training is for {self.data[:12]}: "
                "`dvc repro` prepares it and trains on it"
            )
