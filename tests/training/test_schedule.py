"""Learning-rate schedules."""

from pathlib import Path

import pytest

from pipeline.checkpoint import Record
from pipeline.errors import ParamsError
from pipeline.training.schedule import load_schedule
from pipeline.training.schedules.cosine import CosineSchedule
from pipeline.training.schedules.plateau import PlateauSchedule
from pipeline.training.schedules.step import StepSchedule
from pipeline.training.schedules.warming import LinearWarmUp
from tests.conftest import REPO


def test_the_papers_schedule():
    schedule = load_schedule(REPO / "schedules/paper-cifar.yaml")
    rates = [schedule.lr_at(u, []) for u in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert schedule.total_updates == 64_000


def line(update: int, *, train: float = 50.0, val: float = 50.0) -> Record:
    return Record(update, 0.1, 0.1, 1.0, train, 1.0, val, "float32", 1, 1.0, 1.0)


def test_110_layers_warm_up_until_the_training_error_is_below_80():
    schedule = load_schedule(REPO / "schedules/paper-cifar-110.yaml")
    history: list[Record] = []
    rates = []
    for update, error in ((0, 90.0), (200, 80.0), (400, 79.9), (600, 85.0)):
        rates.append(schedule.lr_at(update, history))
        history.append(line(update + 200, train=error))
    assert rates == [0.01, 0.01, 0.01, 0.1]
    assert schedule.lr_at(800, history) == 0.1  # once it was below, it stays
    assert schedule.lr_at(32_000, history) == pytest.approx(0.01)


def test_a_plateau_divides_the_rate_by_ten():
    schedule = PlateauSchedule(
        shape="plateau", base_lr=0.1, total_updates=100, warmup=None, max_drops=2,
        patience_reports=2, min_gain_pct=0.5,
    )  # fmt: skip
    errors = [50, 40, 39.8, 39.7, 30, 30, 29.9, 29.8, 29.8, 29.8, 29.8]
    history = [line(i, val=error) for i, error in enumerate(errors)]
    rates = [schedule.lr_at(i, history[:i]) for i in range(len(history) + 1)]
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 3 + [0.001] * 5)


@pytest.mark.parametrize("name", ["paper-imagenet", "paper-imagenet-step", "modern"])
def test_ready_made_schedules_start_and_end_as_they_say(name: str):
    schedule = load_schedule(REPO / f"schedules/{name}.yaml")
    assert schedule.lr_at(schedule.total_updates // 10, []) > 0.09
    if name == "paper-imagenet-step":
        assert schedule.lr_at(schedule.total_updates - 1, []) == pytest.approx(1e-4)


def test_cosine_falls_from_base_to_zero():
    schedule = CosineSchedule(shape="cosine", base_lr=0.2, total_updates=100, warmup=None)
    assert [schedule.lr_at(u, []) for u in (0, 50, 100)] == pytest.approx([0.2, 0.1, 0])


def test_a_linear_warm_up_meets_the_schedule():
    warmup = LinearWarmUp(kind="linear", updates=10, start_lr=0.01)
    schedule = StepSchedule(shape="step", base_lr=0.1, total_updates=100, warmup=warmup, drops=())
    assert [schedule.lr_at(u, []) for u in (0, 5, 10)] == pytest.approx([0.01, 0.055, 0.1])


@pytest.mark.parametrize("text, message", [
    ("shape: step\nbase_lr: 1\ntotal_updates: 9\nwarmup: null\ndrops: [5, 3]", "must rise"),
    ("shape: step\nbase_lr: 1\ntotal_updates: 9\nwarmup: null\ndrops: [9]", "below total_updates"),
    ("shape: cosine\nbase_lr: 1\ntotal_updates: 9\nwarmup: null\ndrop: [1]", 'unknown key "drop"'),
    ("shape: triangle\nbase_lr: 1", "shape"),
    ("shape: cosine\nbase_lr: -1\ntotal_updates: 9\nwarmup: null", "base_lr"),
    ("[1, 2", "not a YAML document"),
])  # fmt: skip
def test_bad_schedules_are_answered_with_file_and_key(tmp_path: Path, text: str, message: str):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"s\.yaml") as caught:
        load_schedule(tmp_path / "s.yaml")
    assert message in str(caught.value)
