"""Trainings: resumption bit for bit, histories, divergence. No service is needed."""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from pipeline import attested
from pipeline.checkpoint import Checkpoint, CheckpointFacts, Record
from pipeline.data import dataset, prepared
from pipeline.data.feeding.augmentations import augmenter_of
from pipeline.data.feeding.batches import batches_of
from pipeline.errors import CheckpointError, DataError, DivergedError
from pipeline.params import Row
from pipeline.training.history import (
    history_csv,
    history_digest,
    parse_history_csv,
)
from pipeline.training.loop import Step
from pipeline.training.run import run
from pipeline.training.schedules.cosine import CosineSchedule
from pipeline.training.schedules.step import StepSchedule
from pipeline.training.schedules.warming import ErrorWarmUp, LinearWarmUp
from pipeline.training.sgd import Sgd
from pipeline.training.state import TrainingState
from pipeline.training.training import Training

CPU = torch.device("cpu")
SCHEDULE = CosineSchedule(shape="cosine", base_lr=0.05, total_updates=18, warmup=None)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


class Memory:
    """Checkpoints in memory; may be killed before or after a save commits."""

    def __init__(self, kill_at: int | None = None, *, committed: bool = False) -> None:
        self.saved: list[Checkpoint] = []
        self.kill_at, self.committed = kill_at, committed

    def latest(self) -> Checkpoint | None:
        return self.saved[-1] if self.saved else None

    def save(self, checkpoint: Checkpoint) -> None:
        killed = checkpoint.facts.update == self.kill_at
        if killed and not self.committed:
            raise Killed
        self.saved.append(checkpoint)
        if killed:
            raise Killed


class Job(NamedTuple):
    """A training and the file of its data."""

    training: Training
    arrays: Path


def job(path: Path, row: Row, schedule: CosineSchedule = SCHEDULE, key: str = "k" * 24) -> Job:
    return Job(Training("net", row, schedule, prepared.look(path).digest, key), path)


def finish(job: Job, checkpoints: Memory) -> TrainingState:
    return run(*job, checkpoints, started=time.time(), device=CPU, on_report=lambda history: None)


def fingerprint(state: TrainingState) -> tuple[str, str]:
    return hashlib.sha256(state.tensors()).hexdigest(), history_digest(state.history)


@pytest.mark.slow
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


@pytest.mark.parametrize("every", [1, 5, 7])
def test_resuming_at_any_update_equals_not_having_stopped(
    digits_path: Path, row: Callable[..., Row], every: int
):
    wanted = job(digits_path, row(report_every_updates=every))
    undisturbed = fingerprint(finish(wanted, Memory()))
    checkpoints = Memory()
    for update in range(every, 18, every):  # killed after each checkpoint that there is
        checkpoints.kill_at, checkpoints.committed = update, True
        with pytest.raises(Killed):
            finish(wanted, checkpoints)
    checkpoints.kill_at = None
    assert fingerprint(finish(wanted, checkpoints)) == undisturbed


RECIPES: dict[str, dict[str, Any]] = {
    "accumulated": {"gradient_accumulation_steps": 4},
    "recomputed": {"activation_checkpointing": True},
    "averaged": {"averaged_batch_norm_batches": 3},
    "smoothed": {"label_smoothing": 0.1},
    "scaled": {
        "augmentation": {"kind": "scale_crop", "shorter_side_px": {"low": 8, "high": 12},
                         "crop_px": 8, "mirror": False, "colour_sd": 0.1},
    },
    "imagenet": {
        "network": {"family": "imagenet", "block": "basic", "depth": 18, "shortcut": "B"},
        "augmentation": {"kind": "random_resized_crop", "crop_px": 16, "mirror": True,
                         "area_fraction": {"low": 0.25, "high": 1.0},
                         "aspect_ratio": {"low": 0.75, "high": 1.333}},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resumes_with_the_same_bits(
    digits_path: Path, row: Callable[..., Row], recipe: str
):
    half = 2 if recipe == "imagenet" else 4
    few = SCHEDULE.model_copy(update={"total_updates": 2 * half})
    wanted = job(digits_path, row(**{"report_every_updates": half, **RECIPES[recipe]}), few)
    undisturbed = fingerprint(finish(wanted, Memory()))
    checkpoints = Memory(half, committed=True)
    with pytest.raises(Killed):
        finish(wanted, checkpoints)
    checkpoints.kill_at = None
    assert fingerprint(finish(wanted, checkpoints)) == undisturbed


def test_an_error_warm_up_resumes_on_the_right_side_of_its_end(
    digits_path: Path, row: Callable[..., Row]
):
    schedule = StepSchedule(
        shape="step", base_lr=0.05, total_updates=18, drops=(),
        warmup=ErrorWarmUp(kind="until_error", train_error_pct=80, start_lr=0.01),
    )  # fmt: skip
    wanted = job(digits_path, row(report_every_updates=2), schedule)
    done = finish(wanted, Memory())
    rates = [record.lr for record in done.history]
    below = [record.train_error_pct < 80 for record in done.history]
    end = below.index(True) + 1
    assert 0 < end < len(rates)
    assert rates == [0.01] * end + [0.05] * (len(rates) - end)
    checkpoints = Memory(2 * end, committed=True)
    with pytest.raises(Killed):
        finish(wanted, checkpoints)
    checkpoints.kill_at = None
    assert fingerprint(finish(wanted, checkpoints)) == fingerprint(done)


def test_recomputed_activations_change_no_bit(digits_path: Path, row: Callable[..., Row]):
    usual = finish(job(digits_path, row()), Memory())
    recomputed = finish(job(digits_path, row(activation_checkpointing=True)), Memory())
    assert fingerprint(recomputed) == fingerprint(usual)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    """Without batch norm, whose statistics are each piece's own, as on as many workers."""
    gradients = []
    images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 10
    for pieces in (1, 4):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
        optimizer = Sgd(model.parameters(), 0.0, 0.0, 0.0)
        loss, wrong = Step(model, optimizer, "float32", 0.0, pieces)(images, labels)
        gradients.append((model[1].weight.grad, loss, wrong))
    (whole, loss, wrong), (added, other_loss, other_wrong) = gradients
    torch.testing.assert_close(added, whole)
    torch.testing.assert_close(other_loss, loss)
    assert other_wrong == wrong


def test_averaged_statistics_are_the_means_over_batches(digits_path: Path, row: Callable[..., Row]):
    wanted = row(averaged_batch_norm_batches=4)
    state = finish(job(digits_path, wanted), Memory())
    data = dataset.load(digits_path)
    augmenter = augmenter_of(wanted.augmentation, data, CPU)
    batches = batches_of(data.train, augmenter, global_batch_size=32, seed=1, device=CPU)
    with torch.no_grad():  # the batches after the last one
        outs = [state.model.conv1(images) for _, (images, _) in batches.between(18, 22)]
    means = torch.stack([out.mean((0, 2, 3)) for out in outs]).mean(0)
    variances = torch.stack([out.var((0, 2, 3)) for out in outs]).mean(0)
    torch.testing.assert_close(state.model.bn1.running_mean, means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state.model.bn1.running_var, variances, rtol=1e-4, atol=1e-4)
    assert all(m.momentum == 0.1 for m in state.model.modules() if hasattr(m, "momentum"))
    running = finish(job(digits_path, row()), Memory())
    assert not torch.equal(running.model.bn1.running_mean, state.model.bn1.running_mean)
    assert torch.equal(running.model.conv1.weight, state.model.conv1.weight)


def test_the_history_records_the_precision(digits_path: Path, row: Callable[..., Row]):
    for precision in ("float32", "bfloat16"):
        state = finish(job(digits_path, row(precision=precision)), Memory())
        assert {record.precision for record in state.history} == {precision}


def test_the_threads_are_the_rows_whatever_the_machine_says(
    digits_path: Path, row: Callable[..., Row]
):
    torch.set_num_threads(2)
    for threads in (1, 3):
        state = finish(job(digits_path, row(threads=threads)), Memory())
        assert {record.threads for record in state.history} == {threads}


def test_the_history_has_a_line_at_each_report_and_at_the_end(
    digits_path: Path, row: Callable[..., Row]
):
    state = finish(job(digits_path, row()), Memory())
    assert [record.update for record in state.history] == [4, 8, 12, 16, 18]
    assert state.history[-1].epoch == pytest.approx(18 * 32 / 1297)
    assert state.history[0].lr == pytest.approx(SCHEDULE.lr_at(3, []))


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
    assert state.history[0].lr == pytest.approx(SCHEDULE.lr_at(3, []) / 2)


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


def test_the_learning_rate_in_the_error_is_that_of_the_update(
    digits_path: Path, row: Callable[..., Row]
):
    warmup = LinearWarmUp(kind="linear", updates=8, start_lr=1e-6)
    schedule = SCHEDULE.model_copy(update={"warmup": warmup, "base_lr": 1e30})
    checkpoints = Memory()
    with pytest.raises(DivergedError) as caught:
        finish(job(digits_path, row(report_every_updates=3), schedule), checkpoints)
    update, rate = re.search(
        r"update (\d+) is \w+ at a learning rate of (\S+);", str(caught.value)
    ).groups()
    assert float(rate) == pytest.approx(schedule.lr_at(int(update), []), rel=1e-4)


def test_a_checkpoint_of_another_network_is_refused(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    other = row(network={"family": "cifar", "block": "basic", "depth": 14, "shortcut": "A"})
    with pytest.raises(
        CheckpointError, match=r"models\.net\.network\.depth is 14, .* has 8.*make again RUN=net"
    ):
        finish(job(digits_path, other), checkpoints)


def test_a_checkpoint_of_another_key_is_refused(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    stranger = job(digits_path, row(), key="x" * 24)
    with pytest.raises(CheckpointError, match="belongs to another training"):
        finish(stranger, checkpoints)


def test_a_checkpoint_of_another_schedule_is_refused_whatever_its_key(
    digits_path: Path, row: Callable[..., Row]
):
    checkpoints = Memory()
    finish(job(digits_path, row()), checkpoints)
    longer = SCHEDULE.model_copy(update={"total_updates": 40})
    with pytest.raises(
        CheckpointError, match=r"models\.net\.schedule\.total_updates is 40, .* has 18"
    ):
        finish(job(digits_path, row(), longer), checkpoints)


def test_wall_seconds_add_up_over_attempts(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory(8, committed=True)
    with pytest.raises(Killed):
        finish(job(digits_path, row()), checkpoints)
    first = checkpoints.saved[-1].facts.wall_seconds
    checkpoints.kill_at = None
    finish(job(digits_path, row()), checkpoints)
    facts = checkpoints.saved[-1].facts
    assert facts.wall_seconds > first > 0
    # of each line how busy the machine was, those of the first attempt too
    assert len(facts.usage) == len(facts.history)
    assert all(one["system/system_memory_usage_megabytes"] > 100 for one in facts.usage)
    assert facts.usage[0] == checkpoints.saved[0].facts.usage[0]


def test_lines_of_earlier_code_have_no_usage(digits_path: Path, row: Callable[..., Row]):
    checkpoints = Memory(8, committed=True)
    with pytest.raises(Killed):
        finish(job(digits_path, row()), checkpoints)
    last = checkpoints.saved[-1]
    checkpoints.saved[-1] = last._replace(facts=replace(last.facts, usage=()))
    checkpoints.kill_at = None
    finish(job(digits_path, row()), checkpoints)
    facts = checkpoints.saved[-1].facts
    known = [bool(one) for one in facts.usage]
    assert known == [line.update > last.facts.update for line in facts.history]


def test_weights_that_are_not_finite_are_never_stored(
    digits_path: Path, row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
):
    spoiled = torch.tensor([float("nan"), 90.0], dtype=torch.float64)
    monkeypatch.setattr("pipeline.training.run.loss_and_wrong", lambda *a: spoiled)
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
    tensors, facts = checkpoints.saved[-1]
    checkpoints.saved[-1] = Checkpoint(tensors, replace(facts, threads=64))
    checkpoints.kill_at = None
    finish(job(digits_path, row()), checkpoints)
    assert "warning: threads was 64" in capfd.readouterr().err


def test_another_data_set_than_the_trainings_is_refused(digits_path: Path, row: Callable[..., Row]):
    wanted = job(digits_path, row())
    stranger = wanted._replace(training=replace(wanted.training, data="f" * 64))
    with pytest.raises(DataError, match=r"data set is .*, but the training is for ffffffffffff"):
        finish(stranger, Memory())


def test_a_checkpoint_of_before_rows_named_their_threads_is_gone_on_from(
    digits_path: Path, row: Callable[..., Row]
):
    wanted = job(digits_path, row())
    undisturbed = fingerprint(finish(wanted, Memory()))
    checkpoints = Memory(12, committed=True)
    with pytest.raises(Killed):
        finish(wanted, checkpoints)
    checkpoints.kill_at = None
    tensors, facts = checkpoints.saved[-1]
    document = facts.document()
    del document["trained"]["row"]["threads"]
    for line in document["history"]:
        del line["threads"]
    checkpoints.saved[-1] = Checkpoint(tensors, CheckpointFacts.parse(document))
    assert wanted.training.is_of(checkpoints.saved[-1].facts)
    assert fingerprint(finish(wanted, checkpoints)) == undisturbed


def test_a_checkpoint_of_code_that_was_not_shown_equal_on_its_device_is_refused(
    digits_path: Path, row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
):
    wanted = job(digits_path, row())
    checkpoints = Memory(12, committed=True)
    with pytest.raises(Killed):
        finish(wanted, checkpoints)
    checkpoints.kill_at = None
    tensors, facts = checkpoints.saved[-1]
    assert facts.device == "cpu"
    assert facts.source is not None
    wanted.training.check(replace(facts, device="cuda"))  # of the same code
    older = replace(facts, device="cuda", source="f" * 64)
    checkpoints.saved[-1] = Checkpoint(tensors, older)
    equal = {facts.source: "f" * 64}
    monkeypatch.setattr(attested, "equals", lambda device, folder: equal if device == "cpu" else {})
    wanted.training.check(replace(older, device="cpu"))
    with pytest.raises(CheckpointError, match=r"on cuda by source ffffffffffff, .*make attest"):
        finish(wanted, checkpoints)
    replace(wanted.training, overridden=True).check(older)


def test_a_history_survives_csv_with_all_its_digits():
    history = [
        Record(4, 1 / 3, 0.1, 2.3e-17, 100 / 7, float("inf"), 0.0, "float32", 1, 1.5, 1234.5678)
    ]
    assert parse_history_csv(history_csv(history)) == history


def test_timings_are_not_part_of_a_historys_identity():
    one = Record(4, 0.1, 0.1, 2.0, 50.0, 2.0, 50.0, "float32", 1, 1.0, 100.0)
    other = Record(4, 0.1, 0.1, 2.0, 50.0, 2.0, 50.0, "float32", 1, 2.0, 50.0)
    assert history_digest([one]) == history_digest([other])
