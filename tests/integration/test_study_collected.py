"""A finished study that is collected, pulled, refused or disturbed: nothing is trained again, nothing is lost."""

import hashlib
import json
import re
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.local import s3
from pipeline.models import weights
from pipeline.storage import layout
from pipeline.storage.objects import Storage
from tests.conftest import (
    borrow_environment,
    changed_params,
    run_in,
)
from tests.integration.conftest import ROWS
from tests.integration.trainings import here, stages_run

pytestmark = pytest.mark.integration
NOBODY = "http://127.0.0.1:9"  # where nobody listens


def test_nothing_to_do_looks_for_failed_jobs_alone(study: Path):
    done = run_in(study, "dvc", "repro")
    assert done.returncode == 0
    assert stages_run(done.stdout) == ["check", "handover"]


def test_who_trained_has_evaluated_and_what_s3_lacks_is_evaluated_here_the_same(
    study: Path, storage: Storage
):
    def evaluated() -> tuple[dict[str, bytes], str]:
        code = "import sys; from stages import evaluate; evaluate.main('plain-8'); print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
        done = run_in(study, "python", "-c", code)
        assert done.returncode == 0, done.stderr
        files = sorted((study / "scores/plain-8").iterdir())
        return {file.name: file.read_bytes() for file in files}, done.stdout + done.stderr

    prefix = f"{layout.project()}/{layout.EVALUATIONS}/"
    made = {key: storage.get(key) or b"" for key in storage.keys(prefix)}
    manifests = [key for key in made if "/manifests/" in key]
    assert len(manifests) == len(ROWS)
    collected, said = evaluated()
    assert "set()" in said  # none of them was needed
    for key in manifests:
        storage.put(key, (made[key])[:-9])
    again, said = evaluated()
    assert again == collected
    assert "damaged: it is not what was written there: evaluating again" in said
    storage.delete(*made)
    again, said = evaluated()
    assert again == collected
    assert "{'torch'}" in said
    assert "warning" not in said
    for key, content in made.items():
        storage.put(key, content)


@pytest.mark.trial
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
        done = here(study, f"stages.{name}", *words, RAY_ADDRESS=NOBODY)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (study / "runs/plain-8/history.csv").exists()


def test_a_lost_result_is_collected_and_not_trained_again(study: Path):
    for name in ("model.safetensors", "model.json", "history.csv"):
        (study / "runs/plain-8" / name).unlink()
    done = here(study, "stages.train", "plain-8")
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
    borrow_environment(clone)
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


@pytest.mark.parametrize("stage, change, message", [
    ("train", lambda d: d["models"]["plain-8"].update(momentun=1), 'unknown key "momentun"'),
    ("train", lambda d: d["models"]["plain-8"]["network"].update(depth=9), "wanted 6n+2"),
    ("train", lambda d: d["models"]["plain-8"].update(workers=1024, global_batch_size=1024),
     "of free memory"),
    ("train", lambda d: d["ensemble"].update(members=["plain-8", "no"]), '"no" is not a row'),
])  # fmt: skip
def test_a_bad_study_is_refused_and_earlier_results_stay(study: Path, stage, change, message):
    kept = (study / "runs/plain-8/model.safetensors").read_bytes()
    with changed_params(study, change):
        done = here(study, f"stages.{stage}", "plain-8")
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("Traceback") == 0
    assert (study / "runs/plain-8/model.safetensors").read_bytes() == kept


def two_rows(document: dict) -> None:
    models = document["models"]
    document["models"] = {name: models[name] for name in ("plain-8", "resnet-8")}
    document["ensemble"], document["tune"] = {"members": [*document["models"]]}, {}


def test_a_plan_stands_beside_what_the_trainings_took(study: Path):
    with changed_params(study, two_rows):
        done = run_in(study, "python", "-m", "pipeline.commands.plan")
    assert done.returncode == 0, done.stderr
    assert re.search(r"the \d trainings that have ended took \S+ times", done.stdout), done.stdout
    rows = json.loads((study / "state/plan.json").read_text())["rows"]
    facts = json.loads((study / "runs/plain-8/model.json").read_text())
    assert rows["plain-8"]["run_key"] == facts["run_key"]
    assert rows["plain-8"]["real_s"] == pytest.approx(facts["wall_seconds"], abs=0.05)


def test_a_plan_needs_no_search_to_have_ended(study: Path, tmp_path: Path):
    speeds, schedule = tmp_path / "speeds.yaml", study / "tuned/resnet-8.yaml"
    speeds.write_text("".join(f"{name}: 100\n" for name in ROWS))
    kept = schedule.read_bytes()
    schedule.unlink()
    try:
        done = run_in(study, "python", "-m", "pipeline.commands.plan", f"speeds={speeds}")
    finally:
        schedule.write_bytes(kept)
    assert done.returncode == 0, done.stderr
    row = json.loads((study / "state/plan.json").read_text())["rows"]["resnet-8-tuned"]
    assert (row["run_key"], row["predicted_s"] > 0) == (None, True)


def test_dvc_checkout_brings_an_earlier_result_back_after_a_failed_run(study: Path):
    kept = (study / "runs/plain-8/model.safetensors").read_bytes()
    with changed_params(study, lambda d: d["models"]["plain-8"].update(learning_rate_factor=1e30)):
        failed = run_in(study, "dvc", "repro", "-s", "train@plain-8")
    assert failed.returncode != 0
    assert "loss of update" in failed.stderr and "Traceback" not in failed.stderr
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
    dead = {"MLFLOW_TRACKING_URI": NOBODY}
    with changed_params(study, lambda document: document["models"]["plain-8"].update(seed=78)):
        done = here(study, "stages.train", "plain-8", **dead)
    assert run_in(study, "dvc", "checkout", "train@plain-8", "-f").returncode == 0
    assert done.returncode == 0, done.stderr
    told = run_in(study, "python", "-m", "pipeline.commands.publish", **dead)
    assert told.returncode == 2
    assert f"MLflow at {NOBODY}" in told.stderr
