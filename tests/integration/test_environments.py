"""What stands in a user's shell, home or clone does not reach into the study, and none of it leaks out.

Many settings at once are looked at by `make doctor` and by DVC's own transfer; `make trial-environments` runs a
whole study in each alone.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.local import s3
from pipeline.storage.objects import Storage
from tests import outages
from tests.conftest import copy_study, run_in

pytestmark = pytest.mark.integration
STRANGER = "STRANGER"  # stands for the address of a program that takes whatever it is sent


@dataclass(frozen=True)
class Around:
    """Variables of the shell, files of the home (by name), the clone's folder, what lies in the clone."""

    variables: dict[str, str] = field(default_factory=dict)
    home: dict[str, str] = field(default_factory=dict)
    folder: str = "study"
    clone: Callable[[Path], object] = lambda folder: None


def leave_what_editors_leave(folder: Path) -> None:
    (folder / "pipeline/training/.ipynb_checkpoints").mkdir()
    (folder / "pipeline/training/.ipynb_checkpoints/loop-checkpoint.py").write_text("nonsense(")
    (folder / "pipeline/models/.#resnet.py").symlink_to("user@host.1234:5678")
    (folder / "stages/train.py~").write_text("older")


PROXY = {"HTTP_PROXY": STRANGER, "HTTPS_PROXY": STRANGER, "ALL_PROXY": STRANGER}
ROLE = "[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\nregion = eu-west-1\n"
SSO = "[default]\nsso_session = work\nsso_account_id = 1\nsso_role_name = x\n[sso-session work]\nsso_start_url = https://127.0.0.1:9\nsso_region = eu-west-1\n"
KEYS = "[default]\naws_access_key_id = AKIDSTRANGER\naws_secret_access_key = of-another\n"
DVCS = """[cache]
    dir = /nowhere
[core]
    remote = another
    hardlink_lock = true
['remote "s3"']
    url = s3://another/dvc
    profile = work
"""
AROUND = {
    "a proxy": Around(PROXY),
    "a proxy in lower case": Around({name.lower(): place for name, place in PROXY.items()}),
    "a proxy with exceptions": Around({**PROXY, "NO_PROXY": "intranet.example"}),
    "a profile that is not there": Around({"AWS_PROFILE": "work"}),
    "a default profile that is not there": Around({"AWS_DEFAULT_PROFILE": "work"}),
    "an endpoint": Around({"AWS_ENDPOINT_URL": STRANGER}),
    "an endpoint of S3": Around({"AWS_ENDPOINT_URL_S3": STRANGER}),
    "configured endpoints ignored": Around({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}),
    "another's keys": Around({
        "AWS_ACCESS_KEY_ID": "AKIDSTRANGER", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "y",
    }),
    "a role to assume": Around(home={".aws/config": ROLE, ".aws/credentials": KEYS}),
    "single sign-on": Around(home={".aws/config": SSO}),
    "accelerated transfer": Around(
        home={".aws/config": "[default]\ns3 =\n    use_accelerate_endpoint = true\n"}
    ),
    "a file of credentials": Around({"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials"}),
    "a configuration file": Around({"AWS_CONFIG_FILE": "/nowhere/config"}),
    "a bundle of certificates that is not there": Around({"AWS_CA_BUNDLE": "/nowhere.pem"}),
    "FIPS and dual stack": Around({
        "AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true",
    }),
    "MLflow's own S3": Around({"MLFLOW_S3_ENDPOINT_URL": STRANGER}),
    "MLflow's run": Around({"MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_NAME": "other"}),
    "rclone's flags": Around({
        "RCLONE_BWLIMIT": "1", "RCLONE_READ_ONLY": "true", "RCLONE_RC": "true",
        "RCLONE_AUTH_KEY": "a,b", "RCLONE_DUMP": "headers",
    }),
    "DVC's settings": Around(
        {"DVC_EXP_AUTO_PUSH": "true", "DVC_ROOT": "/nowhere", "DVC_STAGE": "another"},
        home={".config/dvc/config": DVCS},
    ),
    "Ray's settings": Around({
        "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/nowhere", "RAY_RUNTIME_ENV_HOOK": "no.such",
        "RAY_AUTH_TOKEN": "another-cluster's" * 3, "TUNE_RESULT_DIR": "/nowhere",
    }, home={".ray/auth_token": "another-cluster's" * 3}),
    "threads of OpenMP": Around({"OMP_NUM_THREADS": "7", "KMP_BLOCKTIME": "infinite", "OMP_DYNAMIC": "true"}),
    "a long folder for temporary files": Around({"TMPDIR": "LONG"}),
    "a clone in a folder with % and ?": Around(folder="50% of? it #1"),
    "a clone in a folder with a space": Around(folder="my études"),
    "a hook of Git": Around({"GIT_DIR": "/nowhere/.git", "GIT_INDEX_FILE": "/nowhere/index"}),
    "a backend of matplotlib": Around({"MPLBACKEND": "module://nowhere"}),
    "another Python's packages": Around({
        "PYTHONPATH": "PACKAGES", "PYTHONOPTIMIZE": "1", "PYTHONSTARTUP": "/nowhere.py",
    }),
    "no locale": Around({"LC_ALL": "C", "LANG": "C"}),
    "dash as the shell": Around({"SHELL": "/bin/dash"}),
    "what editors and notebooks leave": Around(clone=leave_what_editors_leave),
}  # fmt: skip


def together(*names: str) -> Around:
    """Returns several surroundings in one."""
    found = [AROUND[name] for name in names]
    folders = {one.folder for one in found} - {Around.folder}

    def clone(folder: Path) -> None:
        for one in found:
            one.clone(folder)

    return Around(
        {name: value for one in found for name, value in one.variables.items()},
        {name: text for one in found for name, text in one.home.items()},
        folders.pop() if folders else Around.folder,
        clone,
    )


# of settings that hide one another, those of one kind; each alone is a trial
TOGETHER = {
    "of a shell": together(
        "a proxy with exceptions", "a default profile that is not there", "an endpoint", "an endpoint of S3",
        "another's keys", "a file of credentials", "a bundle of certificates that is not there",
        "FIPS and dual stack", "MLflow's own S3", "MLflow's run", "rclone's flags", "Ray's settings",
        "threads of OpenMP", "a long folder for temporary files", "a hook of Git", "a backend of matplotlib",
        "DVC's settings",
    ),
    "of a home": together(
        "a proxy", "a role to assume", "a clone in a folder with % and ?", "what editors and notebooks leave",
        "no locale", "dash as the shell",
    ),
    "of another home": together(
        "a proxy in lower case", "a profile that is not there", "single sign-on", "configured endpoints ignored",
        "a clone in a folder with a space", "another Python's packages",
    ),
}  # fmt: skip


@contextmanager
def stranger() -> Iterator[tuple[str, list[bytes]]]:
    """Yields the address of a program that notes whatever it is sent, and what that was."""
    got: list[bytes] = []

    def note(connection: socket.socket) -> None:
        got.append(b"connected")  # what it says may come later
        with connection, suppress(OSError):
            connection.settimeout(1)
            got.append(connection.recv(4096))

    with outages.server(note) as address:
        yield address, got


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Path:
    """A study whose archive is there."""
    study = copy_study(tmp_path_factory.mktemp("fetched") / "study")
    assert run_in(study, "dvc", "repro", "-q", "fetch").returncode == 0
    return study


def set_up(around: Around, folder: Path, address: str, begun: Path) -> tuple[Path, dict]:
    """Returns a copy of a study and the variables of a shell in these surroundings."""
    study = shutil.copytree(begun, folder / around.folder, symlinks=True)
    around.clone(study)
    (home := folder / "home").mkdir()
    for name, text in around.home.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    long = folder / ("long-" * 20)
    long.mkdir()
    (packages := folder / "packages").mkdir()
    for name in ("yaml", "numpy", "requests"):
        (packages / f"{name}.py").write_text("raise ImportError('of another program')")
    places = {STRANGER: address, "LONG": str(long), "PACKAGES": str(packages)}
    variables = {name: places.get(value, value) for name, value in around.variables.items()}
    return study, {"HOME": str(home), **variables}


@pytest.mark.parametrize("name", TOGETHER)
def test_nothing_reaches_in_and_nothing_leaks_out(
    name: str, tmp_path: Path, fetched: Path, storage: Storage
):
    with stranger() as (address, got):
        study, shell = set_up(TOGETHER[name], tmp_path, address, fetched)
        done = run_in(study, "python", "-m", "infra.local", "up", **shell)
        assert done.returncode == 0, done.stdout + done.stderr
        pushed = run_in(study, "dvc", "push", **shell)
        assert pushed.returncode == 0, pushed.stdout + pushed.stderr
        looked = run_in(study, "python", "-m", "infra.local", "doctor", **shell)
        assert looked.returncode == 0, looked.stdout + looked.stderr
        assert "FAIL" not in looked.stdout
    assert got == []


def small(document: dict) -> None:
    """Two networks, a search of one trial."""
    del document["models"]["resnet-8"]
    document["tune"]["resnet-8"] |= {"trials": 1, "model": "resnet-8-tuned"}
    document["ensemble"]["members"] = ["plain-8", "resnet-8-tuned"]


@pytest.mark.trial
@pytest.mark.parametrize("name", AROUND)
def test_a_whole_study_in_every_environment(name: str, tmp_path: Path, storage: Storage):
    with stranger() as (address, got):
        begun = copy_study(tmp_path / "begun", small)
        study, shell = set_up(AROUND[name], tmp_path, address, begun)
        ours = ("python", "-m", "infra.local")
        publish = ("python", "-m", "pipeline.commands.publish")  # `report` waits for 20 s at most
        for command in ((*ours, "up"), (*ours, "study"), (*ours, "doctor"), publish):
            done = run_in(study, *command, **shell)
            assert done.returncode == 0, done.stdout + done.stderr
        assert (study / "report/index.html").exists() and (study / "mlflow.db").exists()
        assert run_in(study, "dvc", "push", **shell).returncode == 0
    assert got == []


def test_the_servers_keys_are_in_no_environment(storage: Storage):
    secret = s3._keys()[1]
    assert not any(secret in value for value in os.environ.values())
