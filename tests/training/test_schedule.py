"""Learning-rate schedules."""

from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.training.schedule import CosineSchedule, StepSchedule, WarmUp, load_schedule
from tests.conftest import REPO


def test_the_papers_schedule():
    schedule = load_schedule(REPO / "schedules/paper-cifar.yaml")
    rates = [schedule.lr_at(u) for u in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert schedule.total_updates == 64_000


def test_the_110_layer_network_warms_up_at_a_constant_rate():
    schedule = load_schedule(REPO / "schedules/paper-cifar-110.yaml")
    assert [schedule.lr_at(u) for u in (0, 399, 400)] == [0.01, 0.01, 0.1]


def test_cosine_falls_from_base_to_zero():
    schedule = CosineSchedule(shape="cosine", base_lr=0.2, total_updates=100, warmup=None)
    assert [schedule.lr_at(u) for u in (0, 50, 100)] == pytest.approx([0.2, 0.1, 0])


def test_a_linear_warm_up_meets_the_schedule():
    warmup = WarmUp(kind="linear", updates=10, start_lr=0.01)
    schedule = StepSchedule(shape="step", base_lr=0.1, total_updates=100, warmup=warmup, drops=())
    assert [schedule.lr_at(u) for u in (0, 5, 10)] == pytest.approx([0.01, 0.055, 0.1])


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
