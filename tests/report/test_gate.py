"""The gate: rows of the default study, trained here and now, are as the committed reference's."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import params
from pipeline.checkpoint import Checkpoint
from pipeline.commands import verify
from pipeline.data import dataset, prepared
from pipeline.data.sources import in_memory
from pipeline.data.sources.download import shipped_digits
from pipeline.evaluation.outcomes import outcomes_in
from pipeline.evaluation.scores import scores
from pipeline.evaluation.tables import SINGLE
from pipeline.evaluation.whole import evaluate
from pipeline.models import weights
from pipeline.params import DigitsData
from pipeline.report import reference
from pipeline.report.seeds import group_of
from pipeline.training.result import write_result
from pipeline.training.run import run
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training
from tests.conftest import REPO


class Last:
    """Keeps the last checkpoint; a training begins anew."""

    checkpoint: Checkpoint

    def latest(self) -> None:
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint


def result(study: params.Study, name: str, folder: Path) -> dict[str, Any]:
    """Trains and evaluates a row of the default study; returns what report.json says of it."""
    row, digits = study.models[name], prepared.look(folder / "arrays.safetensors")
    training = Training.of(name, row, load_schedule(REPO / row.schedule), digits.digest)
    last = Last()
    run(
        training, folder / "arrays.safetensors", last, started=0.0, device=torch.device("cpu"),
        on_report=lambda history: None,
    )  # fmt: skip
    write_result(folder / name, training, digits, last.checkpoint)
    trained, data = weights.load(folder / name), dataset.load(folder / "arrays.safetensors")
    evaluation = evaluate(name, row, None, data, trained, torch.device("cpu"))
    found: dict[str, Any] = dict(evaluation.costs)
    for (split, view), table in evaluation.tables.items():
        assert view == SINGLE
        outcomes = outcomes_in(table, getattr(data, split).labels.numpy())
        found |= scores(outcomes, len(data.classes), split, study.evaluation)
    facts = trained.facts
    return {
        "name": name, "group": group_of(row), "seed": row.seed, "kind": row.network.kind,
        "depth": row.network.depth, "paper_test_error_pct": None, "hardware": facts.hardware,
        "torch": facts.torch, "weights_sha256": facts.sha256,
        "scores": {**found, "updates": facts.updates},
    }  # fmt: skip


def test_the_committed_study_passes_the_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(REPO)
    verify.main("against=")
    said = capsys.readouterr().out
    assert "67 comparisons with the reference, 0 differ" in said
    assert "Of 21 trainings" in said and "21 ended with the same bits" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-20", pytest.param("plain-20", marks=pytest.mark.trial)])
def test_a_row_of_the_default_study_is_as_the_references(tmp_path: Path, name: str):
    study = params.load(REPO / "params.yaml")
    assert isinstance(study.data, DigitsData)
    arrays, _ = in_memory.prepare(study.data, shipped_digits())
    dataset.save(arrays, tmp_path / "arrays.safetensors", tmp_path / "digest.json")
    digest = prepared.look(tmp_path / "arrays.safetensors").digest
    row = result(study, name, tmp_path)
    results = {"data": {"digest": digest}, "rows": [row], "ensemble": None}
    found = reference.compare(results, reference.load(REPO / reference.path_of(study.study)))
    assert found["differ"] == 0, found
    assert found["same"] == found["again"], found["said"]
    row["scores"]["train_error_pct"] += 5  # what a small mistake does
    found = reference.compare(results, reference.load(REPO / reference.path_of(study.study)))
    assert found["differ"] == 1
