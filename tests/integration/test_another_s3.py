"""Another S3, as a user chooses it: `make trial-s3 S3=<a file of its variables>`; each test has a bucket of its own."""

import hashlib
import os
import shlex
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.storage.bucket import external
from pipeline.storage.objects import Storage
from tests import pace
from tests.conftest import copy_study, outside
from tests.integration.trainings import stages_run
from tests.photographs import images, small_study, tar

VARIABLES = "TRIAL_S3"
LIMIT_S = 1800.0
pytestmark = [
    pytest.mark.integration,
    pytest.mark.trial,
    pytest.mark.timeout(pace.hangs_after_s(LIMIT_S)),
    pytest.mark.skipif(VARIABLES not in os.environ, reason="make trial-s3 S3=<file of variables>"),
]


@pytest.fixture
def another() -> dict[str, str]:
    """The variables that a user sets, with a new bucket."""
    words = shlex.split(Path(os.environ[VARIABLES]).read_text())
    found = dict(word.split("=", 1) for word in words if "=" in word)
    return {**found, "STUDY_BUCKET": f"study-{uuid.uuid4().hex[:12]}"}


def run(study: Path, another: dict[str, str], *command: str) -> str:
    """Runs a command with that S3, which must succeed; returns what it printed."""
    done = subprocess.run(
        command, cwd=study, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env=outside(**another), timeout=pace.hangs_after_s(LIMIT_S),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def require_all_there(study: Path, another: dict[str, str], row: str) -> None:
    """Pushes and pulls all results, checks every object, and collects what is lost."""
    weights = study / paths.run(row) / paths.WEIGHTS
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    run(study, another, "dvc", "push")
    for folder in (".dvc/cache", "runs", "scores"):
        shutil.rmtree(study / folder)
    run(study, another, "git", "checkout", "--", ".")
    run(study, another, "dvc", "pull")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before
    said = run(study, another, "python", "-m", "pipeline.commands.fsck")
    assert "0 damaged, 0 missing, 0 orphaned" in said
    weights.unlink()
    run(study, another, "python", "-m", "stages.train", row)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before
    again = stages_run(run(study, another, "dvc", "repro"))
    assert not [name for name in again if name.startswith(("train", "tune", "evaluate"))]
    run(study, another, "python", "-m", "pipeline.commands.gc", "apply=1", "days=0")
    assert "0 damaged, 0 missing" in run(study, another, "python", "-m", "pipeline.commands.fsck")


def committed(study: Path) -> None:
    named = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", "add", "-A"], cwd=study, check=True)
    subprocess.run(["git", *named, "commit", "-qm", "results"], cwd=study, check=True)


def test_the_whole_digits_study(another: dict[str, str], tmp_path: Path):
    study = copy_study(tmp_path / "study")
    (study / "params.yaml").unlink()
    run(study, another, "make", "params", "STUDY=digits")
    assert f"s3://{another['STUDY_BUCKET']}" in run(study, another, "make", "study")
    said = run(study, another, "make", "verify")
    assert " 0 differ" in said
    committed(study)
    require_all_there(study, another, "resnet-44")


def test_photographs_in_shards(another: dict[str, str], tmp_path: Path):
    content = tar(tmp_path / "photographs.tar", images(150, 20)).read_bytes()
    settings = {
        **another,
        "STUDY_MIRRORS": str(tmp_path),
        "STUDY_CACHE_DIR": str(tmp_path / "cache"),
    }

    def photographs(document: dict) -> None:
        small_study(document, "photographs.tar", hashlib.sha256(content).hexdigest())

    study = copy_study(tmp_path / "study", photographs)
    (study / "schedules/long.yaml").write_text(
        "shape: cosine\nbase_lr: 0.02\ntotal_updates: 24\nwarmup: null\n"
    )
    run(study, settings, "make", "study")
    committed(study)
    require_all_there(study, settings, "plain-18")


def test_one_of_eight_who_claim_at_once_wins(
    another: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in another.items():
        monkeypatch.setenv(name, value)
    storage = Storage(at=external(), patience_s=60)
    storage._create_bucket()
    for attempt in range(5):

        def claim(who: int, key: str = f"claims/{attempt}") -> bool:
            return Storage(at=external()).put_new(key, f"claimed by {who}".encode())

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1
