"""What a whole study by `dvc repro` leaves: results, report, MLflow; real S3, Ray, MLflow and DVC."""

import base64
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from mlflow import MlflowClient

from infra.local import s3
from pipeline import paths
from pipeline.data import dataset
from pipeline.evaluation import predictions
from pipeline.evaluation.classifier import as_png
from pipeline.evaluation.outcomes import softmax
from pipeline.models import weights
from pipeline.storage.objects import Storage
from pipeline.training.history import parse_history_csv
from tests import pace
from tests.conftest import (
    run_in,
)
from tests.integration.conftest import ROWS
from tests.integration.trainings import require_logged_once, start, wait_for

pytestmark = pytest.mark.integration


def client(study: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{study}/mlflow.db")


def runs_of(study: Path, kind: str) -> list:
    mlflow = client(study)
    experiment = mlflow.get_experiment_by_name("resnet-study")
    return list(mlflow.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'"))


def test_every_file_of_the_design_is_there(study: Path):
    for name in ROWS:
        for file in ("model.safetensors", "model.json", "history.csv"):
            assert (study / "runs" / name / file).stat().st_size
        metrics = json.loads((study / "scores" / name / "metrics.json").read_text())
        for score in ("train_error_pct", "val_error_pct", "test_error_pct"):
            low, high = metrics[f"{score}_ci95"]
            assert low <= metrics[score] <= high
        for timing in ("updates", "train_images_per_s", "train_seconds", "wall_seconds"):
            assert metrics[timing] > 0
    for file in ("tuned/resnet-8.yaml", "tuned/resnet-8.csv", "ensemble/predictions.npz",
                 "report/index.html", "report/report.json", "data/digest.json"):  # fmt: skip
        assert (study / file).stat().st_size


def test_a_clone_gets_no_search_that_it_would_show_as_its_own(study: Path):
    found = [str(file.relative_to(study)) for file in (study / "tuned").glob("resnet-8*")]
    ignored = run_in(study, "git", "check-ignore", *found).stdout.split()
    assert len(found) == 3 and ignored == found
    committed = run_in(study, "git", "ls-files", "tuned").stdout.split()
    assert committed == ["tuned/.gitignore"]


def test_the_report_groups_seeds_and_compares_options(study: Path):
    report = json.loads((study / "report/report.json").read_text())
    seeds = {group["name"]: group["seeds"] for group in report["groups"]}
    assert seeds == {"plain-8": [1], "resnet-8": [1, 2], "resnet-8-tuned": [1],
                     "resnet-8-b": [1], "resnet-8-c": [1]}  # fmt: skip
    (group,) = (group for group in report["groups"] if len(group["rows"]) > 1)
    scores = [
        json.loads((study / "scores" / name / "metrics.json").read_text())["test_error_pct"]
        for name in group["rows"]
    ]
    assert group["test_error_pct"]["mean"] == pytest.approx(statistics.fmean(scores))
    assert group["test_error_pct"]["sd"] == pytest.approx(statistics.stdev(scores))
    claims = [verdict["claim"] for verdict in report["verdicts"]]
    assert (
        "Shortcut options A, B and C all have a lower test error than the plain network" in claims
    )
    said = {verdict["claim"]: verdict["verdict"] for verdict in report["verdicts"]}
    assert said["1202 layers have a higher test error than 110"] == "not run"
    page = (study / "report/index.html").read_text()
    assert "Over seeds" in page and "resnet-8, resnet-8-s2" in page


def test_the_page_needs_no_network(study: Path):
    html = (study / "report/index.html").read_text()
    written = html.split("<script>")[0]  # what follows is the library
    assert "<svg" in written
    assert not re.findall(r"(?:src|href)=[\"'][a-z]+:(?!image/)", written)
    assert "@import" not in written
    assert "default-src 'none'" in written
    for path in ("tables/networks.csv", "plots/curves.csv", "metrics.json"):
        assert (study / "report" / path).stat().st_size


def test_a_paper_takes_tables_and_pictures_from_it_and_it_equals_itself(study: Path):
    done = run_in(study, "python", "-m", "pipeline.commands.paper")
    assert done.returncode == 0, done.stderr
    for name in ("table-6.tex", "claims.tex", "curves-plain.pdf", "errors.pdf", "confusion.pdf"):
        assert (study / "report/paper" / name).stat().st_size > 500
    verify = ("python", "-m", "pipeline.commands.verify", "against=report/report.json")
    done = run_in(study, *verify)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ROWS)} ended with the same bits" in done.stdout


def test_scores_are_those_of_the_weights(study: Path):
    trained = weights.load(study / "runs/resnet-8")
    data = dataset.load(study / "data/arrays.safetensors")
    said = predictions.load(study / "scores/resnet-8/predictions.npz", "test")
    with torch.no_grad():
        logits = trained.model((data.test.images - trained.mean).permute(0, 3, 1, 2))
    assert softmax(logits.numpy()) == pytest.approx(said.probabilities, abs=1e-4)


def test_mlflow_has_the_parent_and_all_children_once(study: Path):
    (parent,) = runs_of(study, "study")
    assert parent.info.run_name == "tiny"
    assert parent.info.status == "FINISHED"
    for kind, count in (("training", len(ROWS)), ("search", 1), ("trial", 2), ("ensemble", 1)):
        children = runs_of(study, kind)
        assert len(children) == count
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    headlines = json.loads((study / "report/report.json").read_text())
    assert parent.data.params["rows"] == str(len(ROWS))
    assert parent.data.metrics["claims_decided"] == headlines["claims_decided"]
    assert "reruns this study" in parent.data.tags["mlflow.note.content"]
    for trial in runs_of(study, "trial"):
        assert client(study).get_metric_history(trial.info.run_id, "val_loss")


def test_mlflow_leads_from_a_training_to_its_data_and_back_to_its_weights(study: Path):
    groups = set()
    for run in runs_of(study, "training"):
        name = run.info.run_name
        (used,) = run.inputs.dataset_inputs
        facts = json.loads((study / "runs" / name / "model.json").read_text())
        assert used.dataset.digest == facts["data_digest"][:36]
        assert [(tag.key, tag.value) for tag in used.tags] == [
            ("mlflow.data.context", "train, val")
        ]
        assert run.data.tags["weights"] == f"dvc pull train@{name}"
        assert run.data.tags["weights_sha256"] == facts["sha256"]
        assert run.data.tags["model"].startswith("models:/")
        groups.add(run.data.tags["group"])
    assert len(groups) == len(ROWS) - 1  # two differ in their seed alone


def test_mlflow_has_every_line_of_a_history_once(study: Path):
    for run in runs_of(study, "training"):
        folder = study / "runs" / run.info.run_name
        history = parse_history_csv((folder / "history.csv").read_text())
        require_logged_once(client(study), run.info.run_id, history)
        name = "system/cpu_utilization_percentage"  # of every training, however short
        used = client(study).get_metric_history(run.info.run_id, name)
        assert sorted(one.step for one in used) == [line.update for line in history]
        scores = json.loads((study / "scores" / run.info.run_name / "metrics.json").read_text())
        for name in ("test_error_pct", "wall_seconds"):
            assert run.data.metrics[f"final_{name}"] == pytest.approx(scores[name])
            assert len(client(study).get_metric_history(run.info.run_id, f"final_{name}")) == 1
        facts = json.loads((folder / "model.json").read_text())
        assert run.data.tags["run_key"] == facts["run_key"]
        assert run.data.tags["data_digest"] == facts["data_digest"]
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", run.data.tags["commit"])
        assert run.data.tags["commit"] == facts["commit"]
        assert run.data.params["network.depth"] == "8"


def test_mlflows_artifacts_are_in_the_bucket(study: Path, storage: Storage):
    for run in runs_of(study, "training"):
        prefix = run.info.artifact_uri.replace("mlflow-artifacts:/", "mlflow/")
        names = {key.removeprefix(f"{prefix}/") for key in storage.keys(prefix)}
        assert {"model.safetensors", "model.json", "history.csv", "metrics.json",
                "confusion.png"} <= names  # fmt: skip


FETCH = """
import json, os, sys, tempfile
import mlflow, numpy, pandas
from mlflow import MlflowClient
tempfile.tempdir = os.getcwd()  # where MLflow leaves what it downloads
client = MlflowClient()
models = {one.name: dict(one.aliases) for one in client.search_registered_models()}
study = next(name for name in models if name.endswith("-ensemble"))
images = numpy.load(sys.argv[1])
lines = pandas.DataFrame({"pixels": [image.tolist() for image in images]})
said = {}
for name in models:
    for place in (f"models:/{name}/latest", f"models:/{name}@best"):
        answers = mlflow.pyfunc.load_model(place).predict(lines)
        said[place] = [list(one.values()) for one in answers["probabilities"]]
        assert all(max(p, key=p.get) == c for p, c in zip(answers["probabilities"], answers["class"]))
experiment = client.get_experiment_by_name("resnet-study")
found = {}
for run in client.search_runs([experiment.experiment_id], "tags.kind = 'training'"):
    names = [one.path for one in client.list_artifacts(run.info.run_id)]
    found[run.info.run_name] = [client.download_artifacts(run.info.run_id, "model.safetensors"), names]
versions = [dict(one.tags) for one in client.search_model_versions()]
print(json.dumps({"weights": found, "said": said, "versions": versions}))
"""


def test_any_client_fetches_weights_and_loads_models_with_the_address_alone(
    study: Path, tmp_path: Path
):
    """It knows the address of `make ui` and its token, and nothing of S3, nor any of our code."""
    images = dataset.load(study / paths.ARRAYS).test.images.numpy()[:20]
    np.save(tmp_path / "images.npy", images)
    port = s3.free_port()
    ui = start(study, "python", "-m", "infra.local", "ui", STUDY_UI_PORT=str(port))
    try:
        wait_for(lambda: s3.answers(port))
        token = s3.secret_file("ui_token").read_text().strip()
        done = subprocess.run(
            [sys.executable, "-c", FETCH, str(tmp_path / "images.npy")], cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_TRACKING_TOKEN": token,
                 "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        ui.terminate()
        ui.wait()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["weights"].keys() == set(ROWS)
    for name, (path, names) in found["weights"].items():
        assert "metrics.json" in names
        facts = json.loads((study / f"runs/{name}/model.json").read_text())
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == facts["sha256"]
        version = next(one for one in found["versions"] if one.get("row") == name)
        assert version["weights_sha256"] == facts["sha256"]
        assert version["run_key"] == facts["run_key"]
    wanted = {}  # of each registered model, and of its best version
    for row in json.loads((study / paths.REPORT).read_text())["groups"]:
        rows = {name: predictions.load(study / paths.scores(name) / paths.PREDICTIONS, "test")
                for name in row["rows"]}  # fmt: skip
        scores = {name: json.loads((study / paths.scores(name) / paths.METRICS).read_text())
                  for name in rows}  # fmt: skip
        best = min(rows, key=lambda name: scores[name]["val_error_pct"])
        wanted[f"models:/tiny-{row['name']}@best"] = rows[best].probabilities
    together = predictions.of_ensemble(study / paths.ENSEMBLE / paths.PREDICTIONS, "declared")
    wanted["models:/tiny-ensemble/latest"] = together["test"].probabilities
    assert wanted.keys() <= found["said"].keys()
    for place, probabilities in wanted.items():
        assert np.allclose(found["said"][place], probabilities[:20], rtol=0, atol=1e-6)


def test_images_are_classified_by_http_for_whoever_has_the_token(study: Path):
    images = dataset.load(study / paths.ARRAYS).test.images.numpy()
    wanted = predictions.load(study / paths.scores(ROWS[0]) / paths.PREDICTIONS, "test")
    port = s3.free_port()
    server = start(
        study,
        "python",
        "-m",
        "pipeline.commands.serve",
        f"run={ROWS[0]}",
        STUDY_SERVE_PORT=str(port),
    )
    lines = [{"image": base64.b64encode(as_png(image)).decode()} for image in images[:5]]
    try:
        wait_for(lambda: s3.answers(port))
        address = f"http://127.0.0.1:{port}/invocations"
        assert (
            requests.post(
                address, json={"dataframe_records": lines}, timeout=pace.hangs_after_s(60)
            ).status_code
            == 401
        )
        bearer = {"Authorization": f"Bearer {s3.secret_file('serve_token').read_text().strip()}"}
        answer = requests.post(
            address,
            json={"dataframe_records": lines},
            headers=bearer,
            timeout=pace.hangs_after_s(60),
        )
        bad = requests.post(
            address, json={"dataframe_records": [{"image": base64.b64encode(b"text").decode()}]},
            headers=bearer, timeout=pace.hangs_after_s(60),
        )  # fmt: skip
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    said = [list(one["probabilities"].values()) for one in answer.json()["predictions"]]
    assert np.allclose(said, wanted.probabilities[:5], rtol=0, atol=1e-6)
    assert bad.status_code == 400 and "image 0: it does not decode" in bad.text


def test_publishing_again_changes_nothing(study: Path):
    def everything() -> list:
        return [
            (
                run.info.run_id,
                metric,
                len(client(study).get_metric_history(run.info.run_id, metric)),
            )
            for kind in ("study", "training", "search", "trial", "ensemble")
            for run in sorted(runs_of(study, kind), key=lambda run: run.info.run_id)
            for metric in sorted(run.data.metrics)
        ]

    before = everything()
    assert run_in(study, "python", "-m", "pipeline.commands.publish").returncode == 0
    assert everything() == before


def test_mlflow_can_be_deleted_and_published_again(study: Path):
    (study / "mlflow.db").rename(study / "mlflow.kept")
    try:
        assert run_in(study, "python", "-m", "pipeline.commands.publish").returncode == 0
        test_mlflow_has_every_line_of_a_history_once(study)
    finally:
        (study / "mlflow.kept").replace(study / "mlflow.db")


def test_secrets_are_neither_in_the_clone_nor_in_mlflow(study: Path, built: Path):
    secret = (built / "secret").read_text()
    for path in study.rglob("*"):
        if path.is_file() and ".venv" not in path.parts and path.stat().st_size < 5_000_000:
            assert secret.encode() not in path.read_bytes(), path
