"""Points of the search space become schedules."""

from typing import Any

from pipeline.cluster.tune import schedule_of
from pipeline.training.schedule import CosineSchedule, StepSchedule


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
