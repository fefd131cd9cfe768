"""A search for a learning-rate schedule by successive halving (Jamieson and Talwalkar, arXiv 1502.07943).

All trials train to the first rung, the best of them to the next, and so on to the last update. A rung is
judged once all of its trials have reached it, by their validation results there alone; the points tried
form a Sobol sequence. So the result is a function of space, seed, data and row, bit for bit: the number
of trials that train at once, interruptions and the machine's speed do not matter, and a search with more
trials builds on those trained before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.checkpoint import Record
from pipeline.errors import TrainingError
from pipeline.params import SearchSpace, Tune, validate
from pipeline.training.schedule import Schedule

WARMUP_START_FRACTION = 0.1  # of base_lr, as the paper's 0.01 before 0.1 (section 4.2)
Status = Literal["complete", "stopped", "diverged"]


@dataclass(frozen=True)
class Trial:
    """A schedule and how far it was trained; `diverged` says that it cannot be trained further."""

    number: int
    key: str
    schedule: Schedule
    history: tuple[Record, ...] = ()
    diverged: bool = False

    @property
    def updates(self) -> int:
        """The number of updates trained."""
        return self.history[-1].update if self.history else 0

    def at(self, update: int) -> Record | None:
        """Returns the history's line of an update, or None if it was not reached."""
        return next((record for record in self.history if record.update == update), None)

    def rank(self, update: int) -> tuple[float, float, int]:
        """Returns a sort key, the best at an update first: validation error, its loss, the number."""
        if (record := self.at(update)) is None:
            return math.inf, math.inf, self.number
        return record.val_error_pct, record.val_loss, self.number


@dataclass(frozen=True)
class Placed:
    """Where a trial ended: at which rung, and with what result."""

    trial: Trial
    updates: int
    status: Status
    record: Record | None


def rungs(tune: Tune) -> list[int]:
    """Returns the updates at which trials are compared: multiples of the report interval, the last."""
    found, updates = [], tune.grace_updates
    while updates < tune.total_updates:
        found.append(updates)
        updates *= tune.reduction_factor
    return [*found, tune.total_updates]


def promoted(trials: Sequence[Trial], rung: int, tune: Tune) -> list[Trial]:
    """Returns the trials that go on from a rung, best first: one in every `reduction_factor`.

    Where one of them has diverged before the next rung, the next best goes on in its place.
    """
    return _gone_on(trials, rung, tune)[0]


def _gone_on(trials: Sequence[Trial], rung: int, tune: Tune) -> tuple[list[Trial], list[Trial]]:
    """Returns who goes on from a rung, and who was to and diverged before the next."""
    further = next(later for later in rungs(tune) if later > rung)
    count, go_on, lost = max(1, len(trials) // tune.reduction_factor), list[Trial](), list[Trial]()
    for trial in sorted(trials, key=lambda trial: trial.rank(rung)):
        if trial.at(rung) and len(go_on) < count:
            (lost if trial.diverged and not trial.at(further) else go_on).append(trial)
    return go_on, lost


def behind(trials: Sequence[Trial], tune: Tune) -> tuple[int, list[Trial]] | None:
    """Returns the first rung that some of its trials have yet to reach, and those; None at the end."""
    alive = list(trials)
    for rung in rungs(tune):
        late = [trial for trial in alive if not trial.diverged and trial.at(rung) is None]
        if late:
            return rung, late
        alive = promoted(alive, rung, tune) if rung < tune.total_updates else []
    return None


def placed(trials: Sequence[Trial], tune: Tune) -> list[Placed]:
    """Returns all trials of a search that has ended, best first.

    Raises TrainingError if all have diverged.
    """
    found: list[Placed] = []
    alive = list(trials)
    for rung in rungs(tune):
        last = rung == tune.total_updates
        go_on, lost = ([], []) if last else _gone_on(alive, rung, tune)
        ended = [trial for trial in alive if trial not in go_on]
        found = [
            Placed(
                trial,
                rung if record else trial.updates,
                _status(record, last=last, lost=trial in lost),
                record,
            )
            for trial in sorted(ended, key=lambda trial: trial.rank(rung))
            for record in [trial.at(rung)]
        ] + found
        alive = go_on
    if not found or found[0].status != "complete":
        raise TrainingError(
            f"tune: each of the {len(trials)} trials diverged: lower tune.<search>.space.base_lr in "
            "params.yaml"
        )
    return found


def _status(record: Record | None, *, last: bool, lost: bool) -> Status:
    if record is None or lost:
        return "diverged"
    return "complete" if last else "stopped"


def planned_updates(tune: Tune) -> int:
    """Returns how many updates a search trains if no trial diverges."""
    total, before, count = 0, 0, tune.trials
    for rung in rungs(tune):
        total += count * (rung - before)
        before, count = rung, max(1, count // tune.reduction_factor)
    return total


def points(space: SearchSpace, seed: int, count: int) -> list[dict[str, Any]]:
    """Returns the first `count` points of a search, from a scrambled Sobol sequence of five dimensions.

    A point depends only on the space, the seed and its place in the sequence.
    """
    from scipy.stats import qmc  # takes half a second, so it is imported only here

    sequence = qmc.Sobol(d=5, scramble=True, rng=seed)
    filled = sequence.random_base2(
        max(0, math.ceil(math.log2(count)))
    )  # a power of two, as Sobol sequences need
    return [_point(space, [float(value) for value in unit]) for unit in filled[:count]]


def _point(space: SearchSpace, unit: Sequence[float]) -> dict[str, Any]:
    lr, shape, *fractions = unit
    ranges = (space.warmup_fraction, space.first_drop_fraction, space.second_drop_fraction)
    warmup, first, second = (
        range_.low + share * (range_.high - range_.low)
        for range_, share in zip(ranges, fractions, strict=True)
    )
    return {
        "base_lr": space.base_lr.low * (space.base_lr.high / space.base_lr.low) ** lr,
        "shape": space.shapes[min(int(shape * len(space.shapes)), len(space.shapes) - 1)],
        "warmup_fraction": warmup,
        "first_drop_fraction": first,
        "second_drop_fraction": second,
    }


def schedule_of(point: dict[str, Any], total_updates: int) -> Schedule:
    """Returns the schedule at a point of the search space."""
    warmup = round(point["warmup_fraction"] * total_updates)
    document: dict[str, Any] = {
        "shape": point["shape"],
        "base_lr": float(f"{point['base_lr']:.4g}"),
        "total_updates": total_updates,
        "warmup": None,
    }
    if warmup:
        start = float(f"{point['base_lr'] * WARMUP_START_FRACTION:.4g}")
        document["warmup"] = {"kind": "linear", "updates": warmup, "start_lr": start}
    if point["shape"] == "step":
        fractions = (point["first_drop_fraction"], point["second_drop_fraction"])
        drops = {min(max(round(f * total_updates), 1), total_updates - 1) for f in fractions}
        document["drops"] = sorted(drops)
    schedule: Schedule = validate(Schedule, document, "trial")
    return schedule
