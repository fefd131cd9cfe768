"""Which run a row's result belongs to."""

import json
import shutil
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline import paths
from pipeline.checkpoint import Checkpoint
from pipeline.errors import DataError
from pipeline.models.weights import ModelFacts
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.tracking import results
from pipeline.tracking.tracker import Address, Tracker
from pipeline.training.history import history_csv
from pipeline.training.result import HISTORY
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training
from tests.checkpoints import facts, model_facts, record
from tests.conftest import REPO, make_row


def test_what_a_person_chose_to_go_on_with_is_sent_and_other_code_s_is_not(
    uri: str, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPO / "schedules", "schedules")
    row = make_row(schedule="schedules/quick-photos.yaml")
    training = Training.of("net", row, load_schedule(Path(row.schedule)), "digest")
    (paths.run("net")).mkdir(parents=True)
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    (paths.run("net") / HISTORY).write_text(history_csv([record(10)]))
    tracker = Tracker(Address("study", "digest", "data"), storage.upload)
    other = uuid.uuid4().hex[:24]

    def send(found: ModelFacts) -> None:
        (paths.run("net") / "model.json").write_text(json.dumps(asdict(found)))
        results.exported(tracker, "net", row, [tmp_path / "net.onnx"], storage)

    mine = model_facts(row.network, data_digest="digest", run_key=training.key)
    send(mine)
    chosen = replace(mine, run_key=other, run_key_overridden=True)
    with pytest.raises(DataError, match="net: runs/net is of other parameters or code: not sent"):
        send(chosen)  # nothing is known of that key
    began = replace(facts(9), key=other, trained=training.recipe)
    CheckpointStore(storage, other).save(Checkpoint(b"weights", began))
    with pytest.raises(DataError, match="not sent"):
        send(replace(chosen, run_key_overridden=False))
    send(chosen)
    client = MlflowClient(uri)
    everywhere = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(everywhere, "tags.kind = 'training'")
    assert {run.data.tags["run_key"] for run in runs} == {training.key, other}
