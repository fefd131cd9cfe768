"""A whole study by `dvc repro`, with real S3, Ray, MLflow and DVC; the tests share one run."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
from pipeline.evaluation.scores import softmax
from pipeline.models import weights
from pipeline.storage import layout
from pipeline.storage.objects import Storage
from pipeline.training.history import parse_history_csv
from tests import pace
from tests.conftest import (
    REPO,
    changed_params,
    copy_study,
    read_params,
    run_in,
    write_params,
)
from tests.integration.trainings import start, wait_for

NOBODY = "http://127.0.0.1:9"  # where nobody listens
pytestmark = pytest.mark.integration
ROWS = ("plain-8", "resnet-8", "resnet-8-tuned", "resnet-8-s2", "resnet-8-b", "resnet-8-c")


def options_and_seeds(document: dict) -> None:
    """Adds options B and C, and a second seed of option A."""
    models = document["models"]
    models["resnet-8-s2"] = {**models["resnet-8"], "seed": 2}
    for option in ("B", "C"):
        network = {**models["resnet-8"]["network"], "shortcut": option}
        models[f"resnet-8-{option.lower()}"] = {**models["resnet-8"], "network": network}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Iterator[Path]:
    folder = copy_study(tmp_path_factory.mktemp("study") / "study", options_and_seeds)
    stale = folder / "scores/resnet-8/metrics.json"  # as a clone's committed results are
    stale.parent.mkdir(parents=True)
    stale.write_text('{"test_error_pct": 99.5, "wall_seconds": 1e9}')
    for command in (("python", "-m", "infra.local", "up"), ("dvc", "repro")):
        done = run_in(folder, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    yield folder


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


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
    said = predictions.load(study / "scores/resnet-8/predictions.npz")["test"]
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


def test_mlflow_has_every_line_of_a_history_once(study: Path):
    for run in runs_of(study, "training"):
        folder = study / "runs" / run.info.run_name
        history = parse_history_csv((folder / "history.csv").read_text())
        for name in set(vars(history[0])) - {"update", "precision"}:
            logged = client(study).get_metric_history(run.info.run_id, name)
            assert sorted((metric.step, metric.value) for metric in logged) == [
                (record.update, getattr(record, name)) for record in history
            ]
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
import json, sys
import mlflow, numpy, pandas
from mlflow import MlflowClient
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
        rows = {name: predictions.load(study / paths.scores(name) / paths.PREDICTIONS)["test"]
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
    wanted = predictions.load(study / paths.scores(ROWS[0]) / paths.PREDICTIONS)["test"]
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


def test_nothing_to_do_looks_for_failed_jobs_alone(study: Path):
    done = run_in(study, "dvc", "repro")
    assert done.returncode == 0
    assert stages_run(done.stdout) == ["check", "handover"]


def test_handover_comes_before_the_trainings_and_not_with_a_single_one(study: Path):
    whole = run_in(study, "dvc", "repro", "--dry", "-f").stdout
    order = re.findall(r"Running stage '([^']+)'", whole)
    assert order.index("handover") < min(order.index(f"train@{name}") for name in ROWS)
    one = run_in(study, "dvc", "repro", "--dry", "-f", "train@plain-8").stdout
    assert "train@plain-8" in one
    assert "handover" not in one


def git(study: Path, *arguments: str) -> str:
    named = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return run_in(study, "git", *named, *arguments).stdout


def changed_on_a_branch(study: Path, branch: str, row: str, factor: float) -> list[str]:
    """Changes a row on a branch and reruns the study; returns the stages that ran."""
    git(study, "checkout", "-q", "-b", branch)
    document = read_params(study)
    document["models"][row]["learning_rate_factor"] = factor
    write_params(study, document)
    done = run_in(study, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    git(study, "add", "-A")
    git(study, "commit", "-q", "-m", branch)
    return stages_run(done.stdout)


def test_one_changed_row_reruns_what_depends_on_it_and_two_peoples_changes_merge(
    study: Path, storage: Storage
):
    git(study, "checkout", "-q", "-B", "first")
    git(study, "add", "-A")
    git(study, "commit", "-q", "-m", "results")
    try:
        stages = changed_on_a_branch(study, "ours", "resnet-8", 0.5)
        later = ["train@resnet-8", "evaluate@resnet-8", "ensemble", "report"]
        assert stages == ["check", "handover", *later]
        git(study, "checkout", "-q", "first")
        assert run_in(study, "dvc", "checkout").returncode == 0
        changed_on_a_branch(study, "theirs", "resnet-8-c", 0.25)
        wanted = {
            name: git(study, "show", f"{branch}:runs/{name}/model.json")
            for branch, name in (("ours", "resnet-8"), ("theirs", "resnet-8-c"))
        }
        before = [key for key in storage.keys(layout.project()) if "/attempts/" in key]

        git(study, "merge", "ours")
        conflicts = git(study, "diff", "--name-only", "--diff-filter=U").split()
        assert "dvc.lock" in conflicts and "params.yaml" not in conflicts
        git(study, "checkout", "--ours", "--", *conflicts)  # either side will do
        git(study, "add", "-A")
        git(study, "commit", "-q", "-m", "merged")
        done = run_in(study, "dvc", "repro")

        assert done.returncode == 0, done.stdout + done.stderr
        found = {name: (study / f"runs/{name}/model.json").read_text() for name in wanted}
        assert found == wanted
        after = [key for key in storage.keys(layout.project()) if "/attempts/" in key]
        assert after == before  # nothing was trained
    finally:
        git(study, "checkout", "-q", "-f", "first")
        run_in(study, "dvc", "checkout")
        done = run_in(study, "dvc", "repro")  # the earlier result comes from DVC's run cache
    assert done.returncode == 0, done.stdout + done.stderr


def instance_of(study: Path, name: str) -> int:
    number: int = json.loads((study / "runs" / name / "model.json").read_text())["instance"]
    return number


def test_again_trains_what_it_names_and_nothing_else(study: Path):
    path = study / "runs/plain-8/model.safetensors"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    assert instance_of(study, "plain-8") == 1
    done = run_in(study, "python", "-m", "pipeline.commands.again", "plain-8")
    assert done.returncode == 0, done.stderr
    assert stages_run(done.stdout) == ["train@plain-8", "evaluate@plain-8"]
    assert "12/12 updates" in done.stdout
    assert "already trained" not in done.stdout
    assert instance_of(study, "plain-8") == 2
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    rest = run_in(study, "dvc", "repro")
    assert rest.returncode == 0, rest.stderr
    assert not [stage for stage in stages_run(rest.stdout) if "train" in stage or "tune" in stage]


def test_force_alone_collects(study: Path):
    done = run_in(study, "dvc", "repro", "-f", "-s", "train@plain-8", "tune@resnet-8")
    assert done.returncode == 0, done.stderr
    assert "collected; `make again RUN=plain-8` trains it afresh" in done.stdout
    assert "already searched" in done.stdout
    assert "12/12" not in done.stdout


def test_a_request_for_the_whole_study_afresh_is_met_once(study: Path):
    before = instance_of(study, "resnet-8")
    for trained in (True, False):
        done = run_in(
            study, "dvc", "repro", "-f", "-s", "train@resnet-8", STUDY_AGAIN="of-this-test"
        )
        assert done.returncode == 0, done.stderr
        assert ("12/12 updates" in done.stdout) == trained
        assert instance_of(study, "resnet-8") == before + 1


def test_an_experiment_of_dvcs_runs_in_a_copy_of_the_study(study: Path):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", "add", "-A"], cwd=study, check=True)
    subprocess.run([*git, "commit", "-qm", "results"], cwd=study, check=True)
    before = (study / "runs/plain-8/model.json").read_text()
    done = run_in(
        study, "dvc", "exp", "run", "--temp", "-n", "other-seed", "-S", "models.plain-8.seed=77",
        "evaluate@plain-8", GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t@localhost",
        GIT_COMMITTER_NAME="t", GIT_COMMITTER_EMAIL="t@localhost",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12/12 updates" in done.stdout
    assert "tune@resnet-8" not in stages_run(done.stdout)
    assert (study / "runs/plain-8/model.json").read_text() == before
    applied = run_in(study, "dvc", "exp", "list", "--name-only")
    assert "other-seed" in applied.stdout


def test_after_an_attested_change_everything_is_collected(study: Path):
    """A function is renamed: shown to change nothing, it retrains nothing."""
    loop, folder = study / "pipeline/training/loop.py", study / "pipeline/attested"
    before, there = loop.read_text(), set(folder.iterdir())
    loop.write_text(before.replace("_last_good", "_last_good_one"))
    code = (
        "from infra import attest as a; every, all_ = a.combinations, a.recipes()\n"
        "golden = {name: all_[name] for name in ('cosine', 'steps')}  # of rows and trials\n"
        "kinds = set().union(*map(a.kinds_of, golden.values()))\n"
        "a.combinations = lambda: (one for one in every() if a.kinds_of(one) <= kinds)\n"
        "a.attest(golden)"
    )
    try:
        shown = run_in(study, "python", "-c", code)
        assert "2 recipes end with the same bits as" in shown.stdout, shown.stderr
        done = run_in(study, "dvc", "repro", *(f"train@{name}" for name in ROWS))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("already trained") == len(ROWS)
        assert "already searched" in done.stdout
        assert "12/12" not in done.stdout
    finally:
        loop.write_text(before)
        for path in set(folder.iterdir()) - there:
            path.unlink()
    back = run_in(study, "dvc", "repro", *(f"train@{name}" for name in ROWS))
    assert back.returncode == 0, back.stderr


@pytest.mark.parametrize("name", ["resnet-99", "prepare", "tune@resnet-99", ""])
def test_again_refuses_what_is_none(study: Path, name: str):
    done = run_in(study, "python", "-m", "pipeline.commands.again", name)
    assert done.returncode == 2
    assert f"RUN={name}: " in done.stderr


def test_what_is_finished_is_collected_without_the_cluster(study: Path):
    (study / "runs/plain-8/history.csv").unlink()
    for stage in (("handover",), ("tune", "resnet-8"), ("train", "plain-8")):
        name, *words = stage
        done = run_in(study, "python", "-m", f"stages.{name}", *words, RAY_ADDRESS=NOBODY)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (study / "runs/plain-8/history.csv").exists()


def test_a_lost_result_is_collected_and_not_trained_again(study: Path):
    for name in ("model.safetensors", "model.json", "history.csv"):
        (study / "runs/plain-8" / name).unlink()
    done = run_in(study, "python", "-m", "stages.train", "plain-8")
    assert done.returncode == 0, done.stderr
    assert "already trained" in done.stdout


def test_a_clone_pulls_one_checkpoint_alone(study: Path, tmp_path: Path, storage: Storage):
    pushed = run_in(study, "dvc", "push")
    assert pushed.returncode == 0, pushed.stderr
    subprocess.run(["git", "add", "-A"], cwd=study, check=True)
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "results",
         "--allow-empty"],
        cwd=study, check=True,
    )  # fmt: skip
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", study, clone], check=True)
    if not (clone / ".venv").exists():
        (clone / ".venv").symlink_to((REPO / ".venv").resolve())
    assert run_in(clone, "python", "-m", "infra.local", "up").returncode == 0
    pulled = run_in(clone, "dvc", "pull", "train@resnet-8")
    assert pulled.returncode == 0, pulled.stderr
    files = {p.relative_to(clone).as_posix() for p in clone.rglob("*.safetensors")}
    assert files == {"runs/resnet-8/model.safetensors"}
    mine, theirs = (f / "runs/resnet-8/model.safetensors" for f in (study, clone))
    assert mine.read_bytes() == theirs.read_bytes()
    assert (
        weights.load(clone / "runs/resnet-8").facts.sha256
        == hashlib.sha256(theirs.read_bytes()).hexdigest()
    )
    done = run_in(clone, "dvc", "repro", "--pull")  # a colleague's results
    assert done.returncode == 0, done.stdout + done.stderr
    computed = [name for name in stages_run(done.stdout) if "train" in name or "tune" in name]
    assert not computed and "prepare" not in stages_run(done.stdout)
    assert (clone / "scores/resnet-8/predictions.npz").exists()


def test_a_stranger_pulls_from_a_web_server_without_keys(
    study: Path, tmp_path: Path, storage: Storage
):
    assert run_in(study, "dvc", "push").returncode == 0
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", study, clone], check=True)
    bucket = s3.state_dir() / "data" / storage.bucket / layout.project()
    handler = partial(SimpleHTTPRequestHandler, directory=str(bucket))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/dvc"
        assert run_in(clone, "dvc", "remote", "add", "public", address).returncode == 0
        pulled = run_in(clone, "dvc", "pull", "-r", "public", "train@resnet-8")
        server.shutdown()
    assert pulled.returncode == 0, pulled.stderr
    mine, theirs = (f / "runs/resnet-8/model.safetensors" for f in (study, clone))
    assert mine.read_bytes() == theirs.read_bytes()


def test_secrets_are_neither_in_the_clone_nor_in_mlflow(study: Path):
    _, secret = s3._keys()
    for path in study.rglob("*"):
        if path.is_file() and ".venv" not in path.parts and path.stat().st_size < 5_000_000:
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("stage, change, message", [
    ("train", lambda d: d["models"]["plain-8"].update(momentun=1), 'unknown key "momentun"'),
    ("train", lambda d: d["models"]["plain-8"]["network"].update(depth=9), "wanted 6n+2"),
    ("train", lambda d: d["models"]["plain-8"].update(workers=1024, global_batch_size=1024),
     "of free memory"),
    ("train", lambda d: d["ensemble"].update(members=["plain-8", "no"]), '"no" is not a row'),
    ("train", lambda d: d["models"]["plain-8"].update(learning_rate_factor=1e30), "loss of update"),
])  # fmt: skip
def test_a_bad_study_is_refused_and_earlier_results_stay(study: Path, stage, change, message):
    kept = (study / "runs/plain-8/model.safetensors").read_bytes()
    with changed_params(study, change):
        done = run_in(study, "python", "-m", f"stages.{stage}", "plain-8")
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("Traceback") == 0
    assert (study / "runs/plain-8/model.safetensors").read_bytes() == kept


def test_a_plan_stands_beside_what_the_trainings_took(study: Path):
    done = run_in(study, "python", "-m", "pipeline.commands.plan")
    assert done.returncode == 0, done.stderr
    assert re.search(r"the \d trainings that have ended took \S+ times", done.stdout), done.stdout
    rows = json.loads((study / "state/plan.json").read_text())["rows"]
    facts = json.loads((study / "runs/plain-8/model.json").read_text())
    assert rows["plain-8"]["run_key"] == facts["run_key"]
    assert rows["plain-8"]["real_s"] == pytest.approx(facts["wall_seconds"], abs=0.05)


def test_dvc_checkout_brings_an_earlier_result_back_after_a_failed_run(study: Path):
    kept = (study / "runs/plain-8/model.safetensors").read_bytes()
    with changed_params(study, lambda d: d["models"]["plain-8"].update(learning_rate_factor=1e30)):
        assert run_in(study, "dvc", "repro", "-s", "train@plain-8").returncode != 0
    assert run_in(study, "dvc", "checkout", "train@plain-8").returncode == 0
    assert (study / "runs/plain-8/model.safetensors").read_bytes() == kept


def test_refused_keys_end_the_stage_with_a_message(study: Path):
    server = s3.ensure_running()
    done = run_in(
        study, "python", "-m", "stages.train", "plain-8", AWS_ENDPOINT_URL=server.endpoint,
        STUDY_BUCKET="resnet-study", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y",
    )  # fmt: skip
    assert done.returncode == 2
    assert "the keys are refused" in done.stderr


def test_a_dead_mlflow_server_does_not_hurt_training(study: Path):
    with changed_params(study, lambda document: document["models"]["plain-8"].update(seed=78)):
        done = run_in(
            study,
            "python",
            "-m",
            "stages.train",
            "plain-8",
            MLFLOW_TRACKING_URI=NOBODY,
        )
    assert run_in(study, "dvc", "checkout", "train@plain-8", "-f").returncode == 0
    assert done.returncode == 0, done.stderr
    assert f"warning: MLflow at {NOBODY}" in done.stderr


def test_everything_on_s3_is_whole_and_needed(study: Path):
    """After all that the other tests have done to it, and after what DVC pushes."""
    assert run_in(study, "dvc", "push").returncode == 0
    shutil.rmtree(s3.state_dir() / "clones", ignore_errors=True)  # those of other tests
    fsck = run_in(study, "python", "-m", "pipeline.commands.fsck")
    facts = [json.loads((study / paths.run(name) / paths.FACTS).read_text()) for name in ROWS]
    mine = {one["run_key"] for one in facts} | {facts[0]["data_digest"], "/dvc/"}
    bad = [line for line in fsck.stdout.splitlines() if line.startswith(("damaged", "missing"))]
    assert not [
        line for line in bad if any(key in line for key in mine)
    ]  # other tests damage theirs
    assert re.search(r"objects, .* MB in .*: \d+ damaged, \d+ missing", fsck.stdout), fsck.stderr
    gc = run_in(study, "python", "-m", "pipeline.commands.gc", "apply=1", "days=0")
    assert gc.returncode == 0, gc.stderr
    for folder in (".dvc/cache", *(str(paths.run(name)) for name in ROWS)):
        shutil.rmtree(study / folder)
    assert run_in(study, "git", "checkout", "--", "runs").returncode in (0, 1)  # if they are in Git
    pulled = run_in(study, "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr
    done = run_in(study, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert not [
        name for name in stages_run(done.stdout) if name.startswith(("train", "tune", "prepare"))
    ]
