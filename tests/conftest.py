"""Fixtures: the services are real, started on free ports in a folder of the tests' own.

Nothing of the user's environment reaches in: it is taken out before anything of ours is imported.
"""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import environment

FOREIGN = ("AWS_", "DVC_", "GIT_", "MLFLOW_", "RAY_", "RCLONE_", "STUDY_", "TUNE_", "XDG_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy")
STATE = Path(tempfile.mkdtemp(prefix="study-tests-"))
# here, since processes that only hand out tests, or that a test spawns, import this module too
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
for _name in list(os.environ):
    if _name.startswith(FOREIGN) or _name.lower() in PROXIES:
        del os.environ[_name]
os.environ["STUDY_STATE_DIR"] = str(STATE / "state")
os.environ["HOME"] = str(STATE / "home")  # ~/.aws, ~/.ray, ~/.config
(STATE / "home").mkdir()
USERS = dict(os.environ)  # the environment of a user's shell
environment.settle()
if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):  # `make test &`: whom a test starts would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

from infra import attest  # noqa: E402
from infra.local import s3  # noqa: E402
from pipeline.data import dataset  # noqa: E402
from pipeline.data.sources import in_memory  # noqa: E402
from pipeline.data.sources.download import shipped_digits  # noqa: E402
from pipeline.files import short_folder  # noqa: E402
from pipeline.params import DigitsData, Row, read_yaml  # noqa: E402
from pipeline.storage.bucket import EMBEDDED  # noqa: E402
from pipeline.storage.objects import Storage  # noqa: E402
from tests import pace  # noqa: E402

REPO = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """A test that takes ten minutes of a quiet machine's time hangs."""
    config.option.timeout = pace.hangs_after_s(600)


# files that take minutes, the longest first: of several at a time none is begun when the others have ended
LONGEST = (
    *(f"integration/test_{name}.py" for name in (
        "cluster", "study", "photos", "side_by_side", "failures", "study_changed", "study_collected",
        "search", "readme", "team", "environments",
    )),
    "infra/test_attest.py", "tracking/test_sending.py",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first; within a file the order stays. Who needs S3 needs a service."""
    for item in items:
        if "storage" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)
    places = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


@pytest.fixture(scope="session", autouse=True)
def own_state() -> Iterator[Path]:
    """The folder of the tests' own servers and keys."""
    s3.state_dir()
    yield STATE / "state"
    s3.stop()
    for sockets in ("cluster", "team"):
        shutil.rmtree(short_folder(sockets), ignore_errors=True)


@pytest.fixture
def storage(own_state: Path) -> Iterator[Storage]:
    """The bucket on a real S3 server, one for all tests; this process knows it for the test alone."""
    with bucket() as found:
        yield found


@contextmanager
def bucket() -> Iterator[Storage]:
    """That bucket, which this process knows as long as the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EMBEDDED, "")  # so that it is restored afterwards
        yield s3.connect()


def elsewhere(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Chooses another S3, as a user does."""
    monkeypatch.setenv("STUDY_BUCKET", "resnet-study")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")


@pytest.fixture(scope="session")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared digits at 8x8 pixels."""
    folder = tmp_path_factory.mktemp("digits")
    data = DigitsData(
        kind="digits",
        image_size_px=8,
        test_images=300,
        val_images=200,
        split_seed=0,
        duplicates_pct=100,
    )
    prepared, _ = in_memory.prepare(data, shipped_digits())
    dataset.save(prepared, folder / "arrays.safetensors", folder / "digest.json")
    return folder / "arrays.safetensors"


def make_row(**changes: object) -> Row:
    """Returns a small row, changed as wanted."""
    small = {
        "schedule": "schedules/tiny.yaml",
        "augmentation": {"kind": "pad_crop", "pad_px": 1, "mirror": False},
        "global_batch_size": 32,
    }
    return Row(**{**Row.NEUTRAL, **attest.ROW, **small, **changes})


@pytest.fixture
def row() -> Callable[..., Row]:
    """`make_row`."""
    return make_row


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(0)


TINY = {"shape": "cosine", "base_lr": 0.05, "total_updates": 12, "warmup": None}


def small_search(model: str) -> dict[str, Any]:
    """Returns the search of the study `digits`, of two trials of a row and eight updates."""
    (tune,) = read_yaml(REPO / "studies/digits.yaml")["tune"].values()
    small = {"trials": 2, "total_updates": 8, "grace_updates": 4, "report_every_updates": 4}
    return {**tune, **small, "model": model}


def copy_study(target: Path, change: Callable[[dict], None] = lambda document: None) -> Path:
    """Puts a copy of the code with a tiny study (two networks, 12 updates) into `target`."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    results = ("runs/", "scores/", "ensemble/", "report/", "data/", "state/", "tests/")
    for name in files:
        if name and not name.startswith(results) and name != "dvc.lock" and (REPO / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, target / name)
    borrow_environment(target)
    yaml = YAML(typ="safe", pure=True)
    with (target / "schedules/tiny.yaml").open("w") as file:
        yaml.dump(TINY, file)
    document = yaml.load((target / "studies/digits.yaml").read_text())
    small = make_row().model_dump(mode="json")
    document["study"] = "tiny"
    document["data"] |= {"image_size_px": 8}
    document["models"] = {
        "plain-8": {
            **small,
            "network": {"family": "cifar", "block": "plain", "depth": 8, "shortcut": "none"},
        },
        "resnet-8": small,
        "resnet-8-tuned": {**small, "schedule": "tuned/resnet-8.yaml"},
    }
    document["tune"] = {"resnet-8": small_search("resnet-8")}
    document["ensemble"] = {"members": ["plain-8", "resnet-8"]}
    change(document)
    write_params(target, document)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    subprocess.run(["git", "add", "-A"], cwd=target, check=True)
    subprocess.run([*git, "commit", "-qm", "study"], cwd=target, check=True)
    return target


def borrow_environment(clone: Path) -> None:
    """Gives a clone the virtual environment of the tests, which `make install` there leaves as it is."""
    if not (clone / ".venv").exists():
        (clone / ".venv").symlink_to((REPO / ".venv").resolve())
    os.utime(clone / "requirements.lock", (0, 0))


def read_params(folder: Path) -> dict:
    """Returns params.yaml of a study."""
    return YAML(typ="safe", pure=True).load((folder / "params.yaml").read_text())


@contextmanager
def changed_params(folder: Path, change: Callable[[dict], object]) -> Iterator[None]:
    """Changes params.yaml of a study for as long as the context lasts."""
    path = folder / "params.yaml"
    before = path.read_text()
    document = read_params(folder)
    change(document)
    write_params(folder, document)
    try:
        yield
    finally:
        path.write_text(before)


def write_params(folder: Path, document: dict) -> None:
    """Writes params.yaml of a study."""
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(document, file)


def run_in(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the virtual environment in a study's folder."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        timeout=pace.hangs_after_s(300), env=outside(**variables),
    )  # fmt: skip


def outside(**variables: str) -> dict[str, str]:
    """Returns the environment of a user's shell in which the virtual environment is active.

    What a test has set for the study (`STUDY_...`) is in it.
    """
    path = f"{(REPO / '.venv' / 'bin').resolve()}:{os.environ['PATH']}"
    ours = {n: v for n, v in os.environ.items() if n.startswith("STUDY_")}
    for name in (environment.SETTLED, EMBEDDED):
        ours.pop(name, None)
    return {**USERS, **ours, "PATH": path, **variables}
