"""A search under its key on S3: what is searched, how far its trials have come, where they ended.

Its trials are trainings with keys of their own; their histories are all that it knows. Looking at a
search does not need Ray (`pipeline.cluster.tuner` runs it until it is finished).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from pipeline.checkpoint import CheckpointFacts
from pipeline.errors import CheckpointError, StudyError
from pipeline.params import Row, Tune, canonical_sha256
from pipeline.progress import Progress
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import SEARCHES, TRIALS, Instance, Instances
from pipeline.storage.objects import Storage
from pipeline.training.identity import KEY_LENGTH, run_key
from pipeline.training.training import Training
from pipeline.tuning import halving
from pipeline.tuning.halving import Placed, Trial

FOLLOW_EVERY_S = 3.0
ALL = "search"  # the manifest that says what is searched
DIVERGED = "diverged-"


class Search:
    """A search; with more trials it is the same search, since its key does not contain their number.

    `data` is the digest of the prepared data set. `trained` is the row as the trials train it.
    """

    def __init__(
        self, tune: Tune, row: Row, data: str, storage: Storage, instance: int | None = None
    ) -> None:
        self.tune, self.row, self.storage = tune, row, storage
        # what the search does not use must not change its trials' keys
        self.trained = row.model_copy(
            update={
                "learning_rate_factor": 1.0,
                "workers": row.worker_bounds[0],
                "report_every_updates": tune.report_every_updates,
                "schedule": "trial.yaml",
            }
        )
        self.data = data
        recipe = tune.model_dump(mode="json", exclude={"time_limit_s", "trials", "model"})
        points = halving.points(tune.space, tune.seed, tune.trials)
        trials = [self._trial(number, point) for number, point in enumerate(points)]
        first = trials[0].key
        self.key = canonical_sha256({"tune": recipe, "first": first})[:KEY_LENGTH]
        # as if none had begun; of trials with equal schedules, only the first
        self.proposed = list({trial.key: trial for trial in reversed(trials)}.values())[::-1]
        self.instance = instance or Instances(storage, SEARCHES, self.key).current()

    @property
    def _there(self) -> Instance:
        return Instance(self.storage, SEARCHES, self.key, self.instance)

    def _trial(self, number: int, point: dict[str, Any]) -> Trial:
        schedule = halving.schedule_of(point, self.tune.total_updates)
        return Trial(number, run_key("", self.trained, schedule, self.data)[0], schedule)

    def training(self, number: int, until: int) -> Training:
        """Returns the training of a trial up to an update."""
        trial = next(trial for trial in self.proposed if trial.number == number)
        return Training(
            f"trial {number}", self.trained, trial.schedule, self.data, trial.key,
            instance=self.instance, kind=TRIALS, until=until,
        )  # fmt: skip

    def checkpoints(self, trial: Trial) -> CheckpointStore:
        """Returns where a trial's checkpoints are."""
        return CheckpointStore(self.storage, trial.key, instance=self.instance, kind=TRIALS)

    def note_collected(self) -> None:
        """Notes that a clone has collected this search."""
        self._there.note_collected()

    def trials(self) -> list[Trial]:
        """Returns the trials with their histories, and whether they diverged."""
        diverged = {name for name in self._there.names() if name.startswith(DIVERGED)}
        found = []
        for trial in self.proposed:
            facts = self.checkpoints(trial).facts()
            history = facts.history if facts else ()
            lost = f"{DIVERGED}{trial.number:05d}" in diverged
            found.append(replace(trial, history=history, diverged=lost))
        return found

    def check(self, name: str) -> None:
        """Raises CheckpointError if a trial was trained by code not shown to be equal."""
        for trial in self.proposed:
            facts = self.checkpoints(trial).facts()
            why = self.training(trial.number, 0).unlike(facts) if facts else ""
            if why:
                raise CheckpointError(
                    f"tune@{name}: trial {trial.number} was computed {why}: `make attest` on such a machine "
                    f"may show it, and `make again RUN=tune@{name}` searches afresh"
                )

    def document(self) -> dict[str, Any]:
        """Returns what is searched, except its schedules: row and data."""
        row = self.trained.canonical("schedule")
        return {"row": row, "data": self.data}

    def is_of(self, facts: CheckpointFacts) -> bool:
        """Tells whether a checkpoint is of a trial of this row and data, whatever code made it."""
        found = facts.trained["row"]
        mine = self.trained.canonical("schedule")
        same = {"threads": mine["threads"], "workers": mine["workers"]}
        return {**found, **same} == mine and facts.trained["data"] == self.data

    @property
    def has_begun(self) -> bool:
        """Tells whether anything is known of the search."""
        return self._there.manifest(ALL) is not None

    @property
    def is_done(self) -> bool:
        """Tells whether every rung has been reached."""
        return self.has_begun and halving.behind(self.trials(), self.tune) is None

    def placed(self) -> list[Placed]:
        """Returns the trials of a finished search, best first; raises TrainingError if all diverged."""
        return halving.placed(self.trials(), self.tune)

    def line(self, place: Placed) -> dict[str, Any]:
        """Returns a trial's line of tuned/<search>.csv."""
        record, schedule = place.record, place.trial.schedule
        return {
            "search": self.key,
            "trial": place.trial.key,
            "number": place.trial.number,
            "status": place.status,
            "updates": place.updates,
            "val_error_pct": record.val_error_pct if record else "",
            "val_loss": record.val_loss if record else "",
            "shape": schedule.shape,
            "base_lr": schedule.base_lr,
            "warmup_updates": getattr(schedule.warmup, "updates", 0),
            "drops": " ".join(str(drop) for drop in getattr(schedule, "drops", ())),
        }

    def curve(self, place: Placed) -> list[dict[str, Any]]:
        """Returns the lines of a trial in tuned/<search>-curves.csv, up to the rung where it ended."""
        return [
            {
                "number": place.trial.number,
                "update": record.update,
                "lr": record.lr,
                "train_error_pct": record.train_error_pct,
                "val_error_pct": record.val_error_pct,
            }
            for record in place.trial.history
            if record.update <= place.updates
        ]

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the context lasts, shows how many of the search's updates have been trained."""
        done = threading.Event()
        total = halving.planned_updates(self.tune)

        def trained() -> int:
            return min(total, sum(trial.updates for trial in self.trials()))

        def follow() -> None:
            with Progress(f"search {self.tune.model}", total, "updates", trained()) as progress:
                while not done.wait(FOLLOW_EVERY_S):
                    with suppress(StudyError):
                        progress.to(trained())
                with suppress(StudyError):
                    progress.to(trained())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(FOLLOW_EVERY_S)

    def note(self, *, done: bool) -> None:
        """Stores that the search has begun, or is done."""
        trials = [trial.key for trial in self.proposed]
        self._there.put_manifest(ALL, {**self.document(), "trials": trials, "done": done}, {})

    def note_divergence(self, number: int, why: str) -> None:
        """Stores that a trial cannot be trained further."""
        self._there.put_manifest(f"{DIVERGED}{number:05d}", {"why": why}, {})
