"""Successive halving: what is proposed, who goes on, who wins."""

import random
from typing import Any

import pytest

from pipeline.checkpoint import Record
from pipeline.errors import TrainingError
from pipeline.params import SearchSpace, Tune
from pipeline.training.schedules.cosine import CosineSchedule
from pipeline.training.schedules.step import StepSchedule
from pipeline.tuning.halving import (
    Trial,
    behind,
    placed,
    planned_updates,
    points,
    promoted,
    rungs,
    schedule_of,
)

SPACE = SearchSpace(
    base_lr={"low": 0.01, "high": 0.5}, shapes=("cosine", "step"),
    warmup_fraction={"low": 0.0, "high": 0.2}, first_drop_fraction={"low": 0.4, "high": 0.7},
    second_drop_fraction={"low": 0.7, "high": 0.95},
)  # fmt: skip
TUNE = Tune(
    model="net", trials=8, total_updates=200, grace_updates=40, reduction_factor=2,
    report_every_updates=20, time_limit_s=1, seed=0, space=SPACE,
)  # fmt: skip


def record(update: int, error: float) -> Record:
    return Record(update, 0.0, 0.1, 1.0, 1.0, error, error, "float32", 1, 1.0, 1.0)


def error_of(number: int, update: int) -> float:
    """Returns some error of a trial at an update, always the same."""
    return random.Random(1000 * number + update).uniform(1, 99)


def trained(number: int, updates: int, *, diverged: bool = False) -> Trial:
    """Returns a trial as it stands after some updates."""
    lines = (record(update, error_of(number, update)) for update in range(20, updates + 1, 20))
    schedule = schedule_of(points(SPACE, 0, number + 1)[number], 200)
    return Trial(number, f"key {number}", schedule, tuple(lines), diverged)


def ended(trials: int, done: dict[int, int], order: random.Random) -> tuple[list, dict[int, int]]:
    """Trains a search to its end, of each rung in any order and in pieces; returns places, updates."""
    tune, done = TUNE.model_copy(update={"trials": trials}), dict(done)
    while True:
        now = [trained(number, done.get(number, 0)) for number in range(trials)]
        if (rung := behind(now, tune)) is None:
            return [(p.trial.number, p.updates, p.status) for p in placed(now, tune)], done
        updates, late = rung
        one = order.choice(late)
        done[one.number] = min(updates, done.get(one.number, 0) + order.choice((20, 40, 200)))


def test_rungs_multiply_and_end_at_the_last_update():
    assert rungs(TUNE) == [40, 80, 160, 200]
    assert rungs(TUNE.model_copy(update={"grace_updates": 200})) == [200]
    assert planned_updates(TUNE) == 8 * 40 + 4 * 40 + 2 * 80 + 1 * 40


@pytest.mark.slow
def test_the_winner_depends_on_no_order():
    wanted, _ = ended(8, {}, random.Random(0))
    assert wanted[0][1:] == (200, "complete")
    assert [updates for _, updates, _ in wanted] == [200, 160, 80, 80, 40, 40, 40, 40]
    for seed in range(1, 30):
        assert ended(8, {}, random.Random(seed))[0] == wanted


def test_more_trials_end_as_if_they_had_been_there_from_the_beginning():
    wanted, _ = ended(12, {}, random.Random(0))
    _, eight = ended(8, {}, random.Random(1))
    found, twelve = ended(12, eight, random.Random(2))
    assert found == wanted
    assert all(twelve[number] >= eight[number] for number in eight)


def test_a_trial_that_was_trained_further_counts_as_it_stood_at_the_rung():
    far, near = trained(0, 200), trained(1, 40)
    better = min((far, near), key=lambda trial: error_of(trial.number, 40))
    assert promoted([far, near], 40, TUNE) == [better]


def test_who_diverged_is_never_promoted_and_never_wins():
    lost = trained(0, 20, diverged=True)
    others = [trained(number, 40) for number in (1, 2, 3)]
    assert lost not in promoted([lost, *others], 40, TUNE)
    assert behind([lost], TUNE) is None
    with pytest.raises(TrainingError, match="each of the 1 trials diverged"):
        placed([lost], TUNE)


def test_the_next_best_goes_on_where_one_diverges_later():
    """However late: what its search has trained so far must not be lost with it."""
    tune = TUNE.model_copy(update={"trials": 4, "reduction_factor": 4})
    first = [trained(number, 40) for number in range(4)]
    best, second, *others = sorted(first, key=lambda trial: trial.rank(40))
    assert behind(first, tune) == (160, [best])
    lost = trained(best.number, 100, diverged=True)
    assert behind([lost, second, *others], tune) == (160, [second])
    won = trained(second.number, 200)
    found = placed([lost, won, *others], tune)
    assert (found[0].trial, found[0].status) == (won, "complete")
    assert {one.trial.number: one.status for one in found}[best.number] == "diverged"
    every = [trained(trial.number, 100, diverged=True) for trial in first]
    assert behind(every, tune) is None
    with pytest.raises(TrainingError, match="each of the 4 trials diverged"):
        placed(every, tune)


def test_points_are_those_of_the_seed_and_the_place():
    assert points(SPACE, 3, 5) == points(SPACE, 3, 12)[:5]
    assert points(SPACE, 3, 5) != points(SPACE, 4, 5)
    many = points(SPACE, 0, 64)
    assert {point["shape"] for point in many} == {"cosine", "step"}
    assert all(0.01 <= point["base_lr"] <= 0.5 for point in many)
    low = sum(point["base_lr"] < (0.01 * 0.5) ** 0.5 for point in many)
    assert low == 32  # a Sobol sequence fills halves alike


def point(**changes: Any) -> dict[str, Any]:
    return {
        "base_lr": 0.123456789, "shape": "step", "warmup_fraction": 0.1,
        "first_drop_fraction": 0.5, "second_drop_fraction": 0.75, **changes,
    }  # fmt: skip


def test_fractions_become_updates():
    schedule = schedule_of(point(), 200)
    assert isinstance(schedule, StepSchedule)
    assert schedule.drops == (100, 150)
    assert schedule.base_lr == 0.1235
    assert schedule.warmup is not None
    assert schedule.warmup.updates == 20


def test_no_warm_up_is_none():
    schedule = schedule_of(point(shape="cosine", warmup_fraction=0.0), 200)
    assert isinstance(schedule, CosineSchedule)
    assert schedule.warmup is None


def test_drops_stay_inside_a_very_short_training():
    schedule = schedule_of(point(first_drop_fraction=0.01, warmup_fraction=0.0), 2)
    assert isinstance(schedule, StepSchedule)
    assert schedule.drops == (1,)
