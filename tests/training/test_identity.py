"""The run key."""

from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import ParamsError
from pipeline.params import Row
from pipeline.training import identity
from pipeline.training.schedule import CosineSchedule

SCHEDULE = CosineSchedule(shape="cosine", base_lr=0.1, total_updates=10, warmup=None)


def key(row: Row, schedule: CosineSchedule = SCHEDULE, digest: str = "d") -> str:
    return identity.run_key("net", row, schedule, digest)[0]


def test_all_that_determines_a_training_changes_its_key(row: Callable[..., Row]):
    keys = {
        key(row()),
        key(row(seed=2)),
        key(row(precision="bfloat16")),
        key(row(learning_rate_factor=2.0)),
        key(row(), SCHEDULE.model_copy(update={"base_lr": 0.2})),
        key(row(), digest="e"),
    }
    assert len(keys) == 6


def test_the_name_of_the_schedules_file_does_not(row: Callable[..., Row]):
    assert key(row()) == key(row(schedule="schedules/other.yaml"))


def test_the_source_does(row: Callable[..., Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = key(row())
    for folder in identity.SOURCES:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "__init__.py"))
    changed = key(row())
    (tmp_path / "training" / "loop.py").write_text("# a comment")
    assert len({before, changed, key(row())}) == 3


def test_an_override_is_taken_and_told(row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(identity.CONTINUE, f"other={'b' * 24} net={'a' * 24}")
    assert identity.run_key("net", row(), SCHEDULE, "d") == ("a" * 24, True)


def test_a_malformed_override_is_refused(row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(identity.CONTINUE, "net=abc")
    with pytest.raises(ParamsError, match="24 hexadecimal"):
        key(row())


@pytest.mark.parametrize("name", [".ipynb_checkpoints/loop-checkpoint.py", ".#loop.py"])
def test_what_editors_and_notebooks_leave_does_not(
    row: Callable[..., Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    for folder in identity.SOURCES:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "__init__.py"))
    before, left = key(row()), tmp_path / "training" / name
    left.parent.mkdir(exist_ok=True)
    left.symlink_to("user@host.1234")  # as Emacs does: it points nowhere
    assert key(row()) == before
