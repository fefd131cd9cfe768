"""A study that is run once for all test files: each gets a copy of its folder and of its objects."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from infra.local import s3
from pipeline.storage.layout import project
from pipeline.storage.objects import Storage
from tests.conftest import bucket, copy_study, run_in
from tests.integration.trainings import end_all

ROWS = ("plain-8", "resnet-8", "resnet-8-tuned", "resnet-8-s2", "resnet-8-b", "resnet-8-c")
KEPT = "mlflow/"  # of the bucket, besides what the project has


def options_and_seeds(document: dict) -> None:
    """Adds options B and C, and a second seed of option A."""
    models = document["models"]
    models["resnet-8-s2"] = {**models["resnet-8"], "seed": 2}
    for option in ("B", "C"):
        network = {**models["resnet-8"]["network"], "shortcut": option}
        models[f"resnet-8-{option.lower()}"] = {**models["resnet-8"], "network": network}


def build(folder: Path) -> str:
    """Runs the study by `make study`, beside a stale result such as a clone's committed ones; returns what it said."""
    copy_study(folder, options_and_seeds)
    stale = folder / "scores/resnet-8/metrics.json"
    stale.parent.mkdir(parents=True)
    stale.write_text('{"test_error_pct": 99.5, "wall_seconds": 1e9}')
    done = run_in(folder, "make", "study")
    assert done.returncode == 0, done.stdout + done.stderr
    publish_the_rest(folder, done.stdout)
    return done.stdout


def publish_the_rest(folder: Path, said: str) -> None:
    """`report` waits for MLflow for 20 s, which a busy machine may need for less than all: this sends it."""
    if not re.search(r"MLflow has (\d+) of \1 runs", said):
        sent = run_in(folder, "python", "-m", "pipeline.commands.publish")
        assert sent.returncode == 0, sent.stdout + sent.stderr


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """What a test has started ends with it."""
    yield
    end_all()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Path:
    """Whoever needs the study first runs it: its folder `study`, its objects in `objects`, and what it `said`."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            part = shared.with_name("built.part")
            shutil.rmtree(part, ignore_errors=True)
            with bucket() as storage:
                forget(storage)
                said = build(part / "study")
                for key in keys(storage):
                    (part / "objects" / key).parent.mkdir(parents=True, exist_ok=True)
                    (part / "objects" / key).write_bytes(storage.get(key) or b"")
            (part / "said").write_text(said)
            (part / "secret").write_text(s3._keys()[1])
            part.rename(shared)
    return shared


def keys(storage: Storage) -> list[str]:
    """Returns what a study has in the bucket."""
    return [*storage.keys(f"{project()}/"), *storage.keys(KEPT)]


def forget(storage: Storage) -> None:
    """Deletes what the studies of other test files left in this process's bucket."""
    storage.delete(*keys(storage))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Iterator[Path]:
    """A copy of the study for one test file, alone on this process's bucket."""
    folder = tmp_path_factory.mktemp("study") / "study"
    shutil.copytree(built / "study", folder, symlinks=True)
    objects = built / "objects"
    with bucket() as storage:
        forget(storage)
        for path in objects.rglob("*"):
            if path.is_file():
                storage.put(path.relative_to(objects).as_posix(), path.read_bytes())
    done = run_in(folder, "python", "-m", "infra.local", "up")  # this process's server
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
