"""A finished study of which something changes, or is asked for afresh: that alone is computed."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.local import s3
from pipeline import paths
from pipeline.storage import layout
from pipeline.storage.objects import Storage
from tests.conftest import (
    read_params,
    run_in,
    write_params,
)
from tests.integration.conftest import ROWS
from tests.integration.trainings import stages_run

pytestmark = pytest.mark.integration


def git(study: Path, *arguments: str) -> str:
    named = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return run_in(study, "git", *named, *arguments).stdout


def changed_on_a_branch(
    study: Path, branch: str, row: str, factor: float, *targets: str
) -> list[str]:
    """Changes a row on a branch and reruns the study up to targets; returns the stages that ran."""
    git(study, "checkout", "-q", "-b", branch)
    document = read_params(study)
    document["models"][row]["learning_rate_factor"] = factor
    write_params(study, document)
    done = run_in(study, "dvc", "repro", *targets)
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
        stages = changed_on_a_branch(study, "ours", "resnet-8", 0.5, "handover", "ensemble")
        later = ["train@resnet-8", "evaluate@resnet-8", "ensemble"]
        assert stages == ["check", "handover", *later]
        left = run_in(study, "dvc", "repro", "--dry", "report")
        assert stages_run(left.stdout) == ["check", "report"]  # the first runs always
        git(study, "checkout", "-q", "first")
        assert run_in(study, "dvc", "checkout").returncode == 0
        # so far, since where two branches change neighbouring lines of dvc.lock, they conflict
        changed_on_a_branch(study, "theirs", "resnet-8-c", 0.25, "ensemble")
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
        done = run_in(study, "dvc", "repro", *(f"train@{name}" for name in wanted))

        assert done.returncode == 0, done.stdout + done.stderr
        found = {name: (study / f"runs/{name}/model.json").read_text() for name in wanted}
        assert found == wanted
        after = [key for key in storage.keys(layout.project()) if "/attempts/" in key]
        assert after == before  # nothing was trained
    finally:
        git(study, "checkout", "-q", "-f", "first")
        run_in(study, "dvc", "checkout")
        done = run_in(study, "dvc", "repro", "ensemble")  # from DVC's run cache
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
    rest = run_in(study, "dvc", "repro", "handover", "ensemble")
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


def test_dvc_compares_the_metrics_and_the_plots_of_two_versions(study: Path, tmp_path: Path):
    git(study, "add", "-A")
    git(study, "commit", "-q", "-m", "results", "--allow-empty")
    path = study / "report/metrics.json"
    before = path.read_text()
    metrics = json.loads(before)
    metrics["test"]["ensemble"] += 1.5
    try:
        path.write_text(json.dumps(metrics))
        done = run_in(study, "dvc", "metrics", "diff", "--json")
        shown = run_in(study, "dvc", "exp", "show", "--only-changed", "--no-pager", COLUMNS="80")
    finally:
        path.write_text(before)
    (changed,) = json.loads(done.stdout).values()
    assert list(changed) == ["test.ensemble"]
    assert changed["test.ensemble"]["diff"] == pytest.approx(1.5)
    columns = shown.stdout.splitlines()[1].split()
    assert columns == ["Experiment", "Created", "test.ensemble"], shown.stdout
    done = run_in(study, "dvc", "plots", "diff", "HEAD", "--json", "-o", str(tmp_path))
    plots = json.loads(done.stdout)
    assert not plots.get("errors"), plots["errors"]
    wanted = {"validation error", "training error", "test error with 95 % intervals",
              "confusion of the declared ensemble"}  # fmt: skip
    assert set(plots["data"]) == wanted
    for (drawn,) in plots["data"].values():
        assert set(drawn["revisions"]) == {"HEAD", "workspace"}


@pytest.mark.trial
def test_everything_on_s3_is_whole_and_needed(study: Path):
    """After all that the other tests have done to it, if they have, and after what DVC pushes."""
    git(study, "add", "-A")
    git(study, "commit", "-q", "-m", "results", "--allow-empty")
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
    assert run_in(study, "git", "checkout", "--", "runs").returncode == 0
    pulled = run_in(study, "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr
    done = run_in(study, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert not [
        name for name in stages_run(done.stdout) if name.startswith(("train", "tune", "prepare"))
    ]
