"""What fails in the evaluation of a finished training is told, and costs neither the training nor its result."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.cluster.evaluating import evaluate_trained
from pipeline.cluster.trainer import train
from pipeline.data import prepared
from pipeline.errors import StorageError, StudyError, TrainingError
from pipeline.evaluations import NETWORK, EvaluationStore
from pipeline.execution.bringing import brought
from pipeline.execution.here import Here
from pipeline.execution.there import There
from pipeline.params import load
from pipeline.paths import FACTS, WEIGHTS
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.training.schedules.cosine import CosineSchedule
from pipeline.training.training import Training
from tests.conftest import REPO, elsewhere, make_row


@pytest.fixture(scope="module")
def training(digits_path: Path) -> Training:
    schedule = CosineSchedule(shape="cosine", base_lr=0.05, total_updates=2, warmup=None)
    return Training.of("some", make_row(), schedule, prepared.look(digits_path).digest)


@pytest.mark.slow
def test_s3_that_is_gone_is_told(
    training: Training, digits_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    elsewhere(monkeypatch, "http://127.0.0.1:9")
    evaluate_trained(training, digits_path, Storage(), torch.device("cpu"))
    assert "warning: some: not evaluated yet: " in capsys.readouterr().err


def test_an_evaluation_that_torch_refuses_costs_no_training(
    training: Training, digits_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("pipeline.cluster.evaluating.evaluate", refused)
    monkeypatch.setattr(EvaluationStore, "save", lambda *_: pytest.fail("something was stored"))
    train(training, digits_path, 0.0)
    assert CheckpointStore.of(training, storage).finished() is not None
    assert "not evaluated yet: CUDA out of memory" in capsys.readouterr().err


def test_who_dies_after_the_last_checkpoint_has_trained(
    digits_path: Path, training: Training, storage: Storage, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    def dies(_: Here, training: Training) -> None:
        train(training, digits_path, 0.0)
        raise TrainingError("failed 4 times")

    monkeypatch.setattr(Here, "train", dies)
    study = load(REPO / "params.yaml")  # not looked at
    other = Training.of("other", make_row(seed=77), training.schedule, training.data)
    checkpoint, collected = brought(other, Here(study, storage), storage)
    assert checkpoint.facts.is_finished
    assert not collected
    assert "failed 4 times: but it is at its end" in capsys.readouterr().err


class Jobs:
    """A cluster on which a key has a job that is alive when it is first asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def latest(self, key: str) -> SimpleNamespace | None:
        self.asked.append(key)
        return SimpleNamespace(name=f"{key}-1", is_alive=len(self.asked) == 1)


def test_who_collects_waits_for_the_job_that_evaluates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    jobs = Jobs()
    monkeypatch.setattr(There, "cluster", jobs)
    monkeypatch.setattr("pipeline.execution.there.POLL_S", 0)
    There.wait_for(object.__new__(There), "some-key")
    assert jobs.asked == ["some-key", "some-key"]
    assert capsys.readouterr().out.count("waiting for the job some-key-1") == 1


def test_a_worker_of_edited_code_refuses_what_was_asked_of_the_code_before(training: Training):
    training.require_source()
    asked = dataclasses.replace(training, key="0" * 24)  # by which it was made, before the edit
    with pytest.raises(StudyError, match="the code was edited after this training was asked for"):
        asked.require_source()
    dataclasses.replace(asked, overridden=True).require_source()  # a person chose the key


def test_a_network_on_s3_writes_its_two_files_and_no_other(storage: Storage, tmp_path: Path):
    store = EvaluationStore(storage, "hostile")
    (tmp_path / "in").mkdir()
    for outside in (str(tmp_path / "outside"), "../outside"):
        store._there.put(NETWORK, {}, {outside: b"1", WEIGHTS: b"2", FACTS: b"3"})
        with pytest.raises(StorageError, match=f"wanted {WEIGHTS} and {FACTS}"):
            store.fetch_network(tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
