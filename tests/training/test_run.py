"""Trainings: resumption bit for bit, histories, divergence. No service is needed."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import CheckpointError, DivergedError
from pipeline.params import Row
from pipeline.training.run import TrainJob, run
from pipeline.training.schedule import CosineSchedule
from pipeline.training.state import (
    Record,
    TrainingState,
    history_csv,
    history_digest,
    parse_history_csv,
)

CPU = torch.device("cpu")
SCHEDULE = CosineSchedule(shape="cosine", base_lr=0.05, total_updates=18, warmup=None)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


class Memory:
    """Checkpoints in memory; may be killed before or after a save commits."""

    def __init__(self, kill_at: int | None = None, *, committed: bool = False) -> None:
        self.saved: list[tuple[bytes, dict[str, Any]]] = []
        self.kill_at, self.committed = kill_at, committed

    def latest(self) -> tuple[bytes, dict[str, Any]] | None:
        return self.saved[-1] if self.saved else None

    def save(self, tensors: bytes, facts: dict[str, Any]) -> None:
        killed = facts["update"] == self.kill_at
        if killed and not self.committed:
            raise Killed
        self.saved.append((tensors, facts))
        if killed:
            raise Killed


def job(path: Path, row: Row, schedule: CosineSchedule = SCHEDULE) -> TrainJob:
    return TrainJob("net", "k" * 24, row, schedule, path, time.time())


def finish(job: TrainJob, checkpoints: Memory) -> TrainingState:
    return run(job, checkpoints, device=CPU, on_report=lambda history: None)


def fingerprint(state: TrainingState) -> tuple[str, str]:
    return hashlib.sha256(state.tensors()).hexdigest(), history_digest(state.history)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kill_at, committed", [(4, False), (4, True), (12, False), (18, False)])
def test_a_killed_training_ends_with_the_same_bits(
    digits_path: Path, row: Callable[..., Row], precision: str, kill_at: int, committed: bool
):
    wanted = job(digits_path, row(precision=precision))
    undisturbed = fingerprint(finish(wanted, Memory()))
    checkpoints = Memory(kill_at, committed=committed)
    with pytest.raises(Killed):
        finish(wanted, checkpoints)
    checkpoints.kill_at = None
    torch.rand(7)  # whatever the global random state is, it does not matter
    assert fingerprint(finish(wanted, checkpoints)) == undisturbed


def test_the_history_has_a_line_at_each_report_and_at_the_end(
    digits_path: Path, row: Callable[..., Row]
):
    state = finish(job(digits_path, row()), Memory())
    assert [record.update for record in state.history] == [4, 8, 12, 16, 18]
    assert state.history[-1].epoch == pytest.approx(18 * 32 / 1297)
    assert state.history[0].lr == pytest.approx(SCHEDULE.lr_at(3))


def test_a_finished_training_does_nothing_more(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    count = len(checkpoints.saved)
    finish(job(digits_path, row()), checkpoints)
    assert len(checkpoints.saved) == count


def test_training_learns(digits_path: Path, row: Callable[..., Row]):
    schedule = SCHEDULE.model_copy(update={"total_updates": 120})
    state = finish(job(digits_path, row(report_every_updates=40), schedule), Memory())
    assert state.history[-1].val_error_pct < 20


def test_the_learning_rate_factor_multiplies(digits_path: Path, row: Callable[..., Row]):
    state = finish(job(digits_path, row(learning_rate_factor=0.5)), Memory())
    assert state.history[0].lr == pytest.approx(SCHEDULE.lr_at(3) / 2)


def test_a_loss_that_is_not_finite_names_update_rate_and_checkpoint(
    digits_path: Path, row: Callable[..., Row]
):
    wild = job(digits_path, row(learning_rate_factor=1e30))
    checkpoints = Memory()
    with pytest.raises(
        DivergedError, match=r"loss of update \d+ is (nan|inf).*checkpoint is of update 0"
    ):
        finish(wild, checkpoints)
    assert checkpoints.saved == []


def test_a_checkpoint_of_another_network_is_refused(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    other = row(network={"family": "cifar", "depth": 14, "shortcut": "A"})
    with pytest.raises(CheckpointError, match="belongs to another training"):
        finish(job(digits_path, other), checkpoints)


def test_a_checkpoint_of_another_key_is_refused(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    stranger = TrainJob("net", "x" * 24, row(), SCHEDULE, digits_path, time.time())
    with pytest.raises(CheckpointError, match="belongs to another training"):
        finish(stranger, checkpoints)


def test_a_checkpoint_of_another_schedule_is_refused_whatever_its_key(
    digits_path: Path, row: Callable[..., Row]
):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    longer = SCHEDULE.model_copy(update={"total_updates": 40})
    with pytest.raises(CheckpointError, match="row, schedule or data differ"):
        finish(job(digits_path, row(), longer), checkpoints)


def test_wall_seconds_add_up_over_attempts(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory(8, committed=True)
    with pytest.raises(Killed):
        finish(job(digits_path, row()), checkpoints)
    first = checkpoints.saved[-1][1]["wall_seconds"]
    checkpoints.kill_at = None
    finish(job(digits_path, row()), checkpoints)
    assert checkpoints.saved[-1][1]["wall_seconds"] > first > 0


def test_weights_that_are_not_finite_are_never_stored(
    digits_path: Path, row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.training.run.loss_and_error", lambda *a: (float("nan"), 90.0))
    checkpoints = Memory()
    with pytest.raises(DivergedError, match="validation loss after update 4 is nan"):
        finish(job(digits_path, row()), checkpoints)
    assert checkpoints.saved == []


def test_another_number_of_threads_is_warned_of(
    digits_path: Path, row: Callable[..., Row], capfd: pytest.CaptureFixture[str]
):
    checkpoints = Memory(8)
    with pytest.raises(Killed):
        finish(job(digits_path, row()), checkpoints)
    checkpoints.saved[-1][1]["threads"] = 64
    checkpoints.kill_at = None
    finish(job(digits_path, row()), checkpoints)
    assert "warning: threads was 64" in capfd.readouterr().err


def test_a_history_survives_csv_with_all_its_digits():
    history = [Record(4, 1 / 3, 0.1, 2.3e-17, 100 / 7, float("inf"), 0.0, 1.5, 1234.5678)]
    assert parse_history_csv(history_csv(history)) == history


def test_timings_are_not_part_of_a_historys_identity():
    one = Record(4, 0.1, 0.1, 2.0, 50.0, 2.0, 50.0, 1.0, 100.0)
    other = Record(4, 0.1, 0.1, 2.0, 50.0, 2.0, 50.0, 2.0, 50.0)
    assert history_digest([one]) == history_digest([other])
