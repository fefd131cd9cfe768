"""A team's MLflow: PostgreSQL, two users with two studies at once, passwords, artifacts through the server."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from infra.local import s3, team
from pipeline import paths
from pipeline.storage.objects import Storage
from tests import pace
from tests.conftest import changed_params, outside, run_in
from tests.integration.conftest import ROWS
from tests.integration.trainings import here, said_by, start, wait_for

pytestmark = pytest.mark.integration
PUBLISH = ("python", "-m", "pipeline.commands.publish")

FETCH = """
import hashlib, json, os, sys, tempfile
from mlflow import MlflowClient
tempfile.tempdir = os.getcwd()  # where MLflow leaves what it downloads
client = MlflowClient()
assert client.search_registered_models(), "no model"
found = {}
for name in sys.argv[1:]:
    experiment, found[name] = client.get_experiment_by_name(name), {}
    for run in client.search_runs([experiment.experiment_id], "tags.kind = 'training'"):
        weights = client.download_artifacts(run.info.run_id, "model.safetensors")
        found[name][run.info.run_name] = hashlib.sha256(open(weights, "rb").read()).hexdigest()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def members(own_state: Path) -> Iterator[dict[str, dict[str, str]]]:
    """The settings of two users of a team's servers, which run as long as the module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STUDY_S3", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, "")  # so that it is restored afterwards
        patch.setenv(team.PORT, str(s3.free_port()))
        team.up()
        found = {}
        for name in ("ada", "bob"):
            lines = team.add_user(name).read_text().replace("export ", "").splitlines()
            found[name] = dict(line.split("=", 1) for line in lines)
        yield found
        assert team.down()


CREATE = "/api/2.0/mlflow/experiments/create"


@pytest.mark.parametrize(
    "method, path, said",
    [
        ("PUT", "/ajax-api/3.0/mlflow/assistant/config", {"providers": {}}),
        (
            "POST",
            CREATE,
            {"name": "mine", "artifact_location": "file:///tmp/x"},
        ),
        (
            "POST",
            CREATE,
            {"name": "mine", "artifactLocation": "/tmp/x"},
        ),
        ("POST", "/ajax-api/2.0/mlflow/model-versions/create", {"name": "mine", "source": "/etc"}),
        (  # as earlier clients encoded it, twice
            "POST",
            CREATE,
            json.dumps({"name": "mine", "artifact_location": "file:///tmp/x"}),
        ),
        (
            "POST",
            CREATE,
            {"name": "mine", "artifact_location": "mlflow-artifacts:/%2e%2e/%252e%252e/etc"},
        ),
        (
            "PATCH",
            "/api/2.0/mlflow/traces/tr-1/tags",
            {"key": "mlflow.artifactLocation", "value": "file:///tmp"},
        ),
        (
            "POST",
            "/api/3.0/mlflow/traces",
            {"trace": {"trace_info": {"tags": {"mlflow.trace.archiveLocation": "file:///tmp"}}}},
        ),
    ],
)
def test_a_member_gets_no_files_and_no_programs_of_the_servers_host(
    members: dict[str, dict[str, str]], method: str, path: str, said: dict | str
):
    ada = members["ada"]
    who = (ada["MLFLOW_TRACKING_USERNAME"], ada["MLFLOW_TRACKING_PASSWORD"])
    url = f"{ada['MLFLOW_TRACKING_URI']}{path}"
    answer = requests.request(method, url, json=said, auth=who, timeout=pace.hangs_after_s(60))
    assert answer.status_code == 403, answer.text
    assert answer.json()["error_code"] == "PERMISSION_DENIED"
    place = {
        "name": f"allowed {uuid.uuid4()}",
        "artifact_location": "mlflow-artifacts:/x",
    }
    url = f"{ada['MLFLOW_TRACKING_URI']}{CREATE}"
    answer = requests.post(url, json=place, auth=who, timeout=pace.hangs_after_s(60))
    assert answer.status_code == 200, answer.text


def test_two_studies_are_published_at_once_each_in_its_experiment(
    study: Path, members: dict[str, dict[str, str]], tmp_path: Path
):
    other = tmp_path / "other"
    shutil.copytree(study, other, symlinks=True)
    bob = {**members["bob"], "MLFLOW_EXPERIMENT_NAME": "bobs"}

    def fewer(document: dict) -> None:
        document["models"] = {name: document["models"][name] for name in ROWS[:2]}
        document["tune"] = {}

    whole = start(study, *PUBLISH, **members["ada"])
    with changed_params(other, fewer):
        for done in (here(other, "stages.report", **bob), run_in(other, *PUBLISH, **bob)):
            assert done.returncode == 0, done.stdout + done.stderr
    said = said_by(whole)
    assert whole.returncode == 0, said
    wanted = {
        name: json.loads((study / paths.run(name) / paths.FACTS).read_text())["sha256"]
        for name in ROWS
    }
    of_bob = {name: wanted[name] for name in ROWS[:2]}
    for name, found in (
        ("ada", {"resnet-study": wanted}),
        ("bob", {"bobs": of_bob, "resnet-study": wanted}),
    ):
        done = subprocess.run(  # a client that knows the address and a password, and nothing of S3
            [sys.executable, "-c", FETCH, *found], cwd=tmp_path, capture_output=True, text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **members[name]},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == found


def test_the_servers_artifacts_are_checked_too(
    study: Path, members: dict[str, dict[str, str]], storage: Storage
):
    fsck = ("python", "-m", "pipeline.commands.fsck")

    def found() -> list[str]:
        done = run_in(study, *fsck, **members["ada"])
        assert re.search(r"MLflow: \d+ artifacts, .* by its server", done.stdout), done.stderr
        return [one for one in done.stdout.splitlines() if "mlflow-artifacts:/" in one]

    published = run_in(study, *PUBLISH, **members["ada"])
    assert published.returncode == 0, published.stderr
    digest = json.loads((study / paths.run(ROWS[0]) / paths.FACTS).read_text())["sha256"]
    keys = [key for key in storage.keys("mlflow/") if key.endswith("/model.safetensors")]
    whole = {one: storage.get(one) for one in keys if storage.digest(one, "sha256")[0] == digest}
    try:
        for one, content in whole.items():  # that of `make ui`'s server, and of the team's
            storage.put(one, bytes([content[0] ^ 1]) + content[1:])
        damaged = found()  # the run's and the model's
        assert damaged and all(
            one.startswith("damaged: ") and f"wanted {digest}: delete its run" in one
            for one in damaged
        )
        storage.delete(*whole)
        missing = found()
        assert len(missing) == len(damaged)
        assert all(one.startswith("missing: ") and "MLflow names it" in one for one in missing)
    finally:
        for one, content in whole.items():
            storage.put(one, content)
    assert found() == []


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused_and_told(
    study: Path, members: dict[str, dict[str, str]], password: str
):
    settings = {**members["ada"], "MLFLOW_TRACKING_PASSWORD": password}
    done = run_in(study, *PUBLISH, **settings)
    assert done.returncode == 2
    assert "401" in done.stderr or "not authenticated" in done.stderr, done.stderr
    assert members["ada"]["MLFLOW_TRACKING_PASSWORD"] not in done.stdout + done.stderr


def test_no_password_is_in_an_argument_or_open_to_others(members: dict[str, dict[str, str]]):
    supervisor = psutil.Process(int((team.folder() / "pid").read_text()))
    everyone = [supervisor, *supervisor.children(recursive=True)]
    assert any("postgres" in one.name() for one in everyone)
    said = " ".join(" ".join(one.cmdline()) for one in everyone)
    for name in ("admin", "postgres", "session", "user_ada"):
        assert team.password_of(name) not in said
    assert team.folder().stat().st_mode & 0o077 == 0
    for path in team.folder().glob("user-*"):
        assert path.stat().st_mode & 0o077 == 0


def test_it_is_told_what_is_wrong(members: dict[str, dict[str, str]], tmp_path: Path):
    again = team.add_user("ada")  # as after a change of the port
    assert members["ada"]["MLFLOW_TRACKING_PASSWORD"] in again.read_text()
    for name, message in (("", "wanted"), ("a b", "wanted lower-case"), ("admin", "not admin")):
        done = subprocess.run(
            [sys.executable, "-m", "infra.local", "team-user", name], capture_output=True, text=True,
            check=False, env=outside(),
        )  # fmt: skip
        assert done.returncode == 1
        assert f"error: NAME={name}" in done.stderr and message in done.stderr


@pytest.mark.trial
def test_what_was_published_outlives_a_killed_server(
    study: Path, members: dict[str, dict[str, str]], tmp_path: Path
):
    supervisor = psutil.Process(int((team.folder() / "pid").read_text()))
    left = supervisor.children(recursive=True)  # MLflow and PostgreSQL, which do not end with it
    supervisor.kill()
    wait_for(lambda: team.running() is None)
    assert team.up() == members["ada"]["MLFLOW_TRACKING_URI"]
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left)
    done = run_in(study, *PUBLISH, **members["ada"])
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256((study / paths.run(ROWS[0]) / paths.WEIGHTS).read_bytes()).hexdigest()
    fetched = subprocess.run(
        [sys.executable, "-c", FETCH, "resnet-study"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **members["ada"]},
    )  # fmt: skip
    assert json.loads(fetched.stdout.splitlines()[-1])["resnet-study"][ROWS[0]] == digest
