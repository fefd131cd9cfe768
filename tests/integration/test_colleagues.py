"""Two people with a clone each on one S3: what either deletes there, the other does not need."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from infra.local import s3
from pipeline import paths
from pipeline.storage.objects import Storage
from tests.conftest import TINY, borrow_environment, read_params, run_in, write_params
from tests.integration.trainings import (
    result_of,
    said_by,
    stages_run,
    start,
    store_of,
    update_of,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.trial]


def git(clone: Path, *arguments: str) -> None:
    named = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = run_in(clone, "git", *named, *arguments)
    assert done.returncode == 0, done.stderr


def commit_and_push(clone: Path, branch: str) -> None:
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", branch)
    for command in (("dvc", "push"), ("git", "push", "-q", "origin", f"HEAD:{branch}")):
        done = run_in(clone, *command)
        assert done.returncode == 0, done.stderr


def change(clone: Path, row: str, **values: object) -> None:
    document = read_params(clone)
    document["models"][row] |= values
    write_params(clone, document)


def pull_afresh(clone: Path) -> None:
    """Deletes all results that DVC has here, then pulls them."""
    for folder in (".dvc/cache", "runs", "scores", "ensemble"):
        shutil.rmtree(clone / folder)
    git(clone, "checkout", "--", "runs", "scores", "ensemble")
    pulled = run_in(clone, "dvc", "pull")
    assert pulled.returncode == 0, pulled.stdout + pulled.stderr


def require_whole(clone: Path) -> None:
    """Asks `make fsck` and `dvc repro`: nothing is damaged or missing, nothing is to be trained."""
    fsck = run_in(clone, "python", "-m", "pipeline.commands.fsck")
    assert fsck.returncode == 0, fsck.stdout + fsck.stderr
    assert re.search(r"0 damaged, 0 missing", fsck.stdout)
    done = run_in(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    computed = ("train", "tune", "prepare", "evaluate")
    assert not [name for name in stages_run(done.stdout) if name.startswith(computed)]


def test_what_one_deletes_another_has_not_pushed_or_begun(
    study: Path, tmp_path: Path, storage: Storage
):
    origin, other = tmp_path / "origin.git", tmp_path / "other"
    subprocess.run(["git", "init", "-q", "--bare", origin], check=True)
    git(study, "remote", "add", "origin", str(origin))
    commit_and_push(study, "main")
    subprocess.run(["git", "clone", "-q", "-b", "main", origin, other], check=True)
    borrow_environment(other)

    # a colleague pushes a branch, and is interrupted in a training that nothing in Git names
    assert run_in(other, "python", "-m", "infra.local", "up").returncode == 0
    change(other, "resnet-8-c", learning_rate_factor=0.25)
    done = run_in(other, "dvc", "repro", "--pull")
    assert done.returncode == 0, done.stdout + done.stderr
    commit_and_push(other, "theirs")
    theirs = result_of(other, "resnet-8-c")
    text = "\n".join(f"{name}: {value}" for name, value in {**TINY, "total_updates": 3000}.items())
    (other / "schedules/long.yaml").write_text(text.replace("None", "null"))
    change(other, "plain-8", schedule="schedules/long.yaml", report_every_updates=20)
    process = start(other, "python", "-m", "stages.train", "plain-8")
    wait_for(lambda: update_of(store_of(other, "plain-8")) > 0)
    process.send_signal(signal.SIGKILL)
    said_by(process)
    reached = update_of(store_of(other, "plain-8"))

    # here a row changes, its old result is needed no more, and the colleague works at another machine
    change(study, "resnet-8-s2", learning_rate_factor=0.5)
    assert run_in(study, "dvc", "repro").returncode == 0
    commit_and_push(study, "main")
    shutil.rmtree(s3.state_dir() / "clones")
    shown = run_in(study, "python", "-m", "pipeline.commands.gc", "apply=", "days=0")
    assert shown.returncode == 0, shown.stderr
    before = set(storage.keys(""))
    deleted = run_in(study, "python", "-m", "pipeline.commands.gc", "apply=1", "days=0")
    assert deleted.returncode == 0, deleted.stderr
    assert len(set(storage.keys(""))) < len(before)

    pull_afresh(study)
    require_whole(study)
    goes_on = run_in(other, "python", "-m", "stages.train", "plain-8")
    assert f"resumed at update {reached}" in goes_on.stdout, goes_on.stdout + goes_on.stderr
    git(other, "checkout", "-q", "--force", "theirs")
    pull_afresh(other)
    require_whole(other)
    assert result_of(other, "resnet-8-c") == theirs
    assert (other / paths.run("resnet-8-c") / paths.WEIGHTS).exists()
