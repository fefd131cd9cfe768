"""Another user of the host reads nothing, writes nothing and submits nothing."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from infra.local import s3
from pipeline.cluster import session
from pipeline.files import private_folder
from pipeline.storage.objects import Storage
from tests import pace
from tests.conftest import REPO, outside

NOBODY = 65534
REFUSED = ("400", "403")  # without a signature, with a wrong one
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("curl"), reason="root alone acts as another user"
    ),
]


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={"PATH": os.defpath},
        capture_output=True, text=True, check=False, timeout=pace.hangs_after_s(60),
    )  # fmt: skip


def status_of(*arguments: str) -> str:
    """Returns the HTTP status that another user gets."""
    return as_nobody("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *arguments).stdout


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Iterator[str]:
    """The address of a running UI, without its token."""
    port = str(s3.free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local", "ui"], cwd=tmp_path_factory.mktemp("ui"),
        env=outside(STUDY_UI_PORT=port, PYTHONPATH=str(REPO)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + pace.hangs_after_s(120)
    while not s3.answers(int(port)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


EXPERIMENT = '{"name": "mine", "artifact_location": "file:///root"}'


@pytest.mark.parametrize("token", ["", "?token=", "?token=guessed"])
def test_no_page_of_mlflow_is_shown(ui: str, token: str):
    for path in ("/", "/static-files/index.html", "/health", "/get-artifact", "/version"):
        assert status_of(f"{ui}{path}{token}") == "401", path


@pytest.mark.parametrize(
    "path", ["/api/2.0/mlflow/experiments/create", "/ajax-api/2.0/mlflow/experiments/create",
             "/ajax-api/3.0/mlflow/assistant/message", "/v1/traces", "/mcp"]
)  # fmt: skip
def test_no_experiment_is_made_by_which_files_could_be_read(ui: str, path: str):
    asked = ("-X", "POST", "-H", "Content-Type: application/json", "-d", EXPERIMENT)
    assert status_of(*asked, f"{ui}{path}") == "401"


def test_the_owner_gets_in_by_address_cookie_and_header(ui: str):
    token = s3.secret_file("ui_token").read_text()
    for asked in (
        (f"{ui}/?token={token}",),
        ("-H", f"Authorization: Bearer {token}", f"{ui}/version"),
        ("-u", f"me:{token}", f"{ui}/version"),
    ):
        assert status_of(*asked) == "200"
    browser = requests.Session()  # has cookies
    assert browser.get(f"{ui}/?token={token}", timeout=pace.hangs_after_s(60)).status_code == 200
    ((name, value),) = browser.cookies.items()
    assert browser.get(f"{ui}/version", timeout=pace.hangs_after_s(60)).status_code == 200
    # who listens here later gets the cookie, and neither the token nor what opens another server
    assert token not in value
    assert name != "study-ui"
    assert status_of("-H", f"Cookie: {name}={token}", f"{ui}/version") == "401"


def test_s3_refuses_who_has_no_key(storage: Storage):
    storage.put("secret", b"1")
    assert status_of(f"{storage.place.endpoint}/{storage.bucket}/secret") in REFUSED
    assert (
        status_of("-X", "PUT", "-d", "2", f"{storage.place.endpoint}/{storage.bucket}/x") in REFUSED
    )
    assert storage.get("secret") == b"1" and storage.get("x") is None


def test_keys_tokens_and_data_cannot_be_read(storage: Storage, own_state: Path):
    s3.secret_file("ray_token")
    own_state.parent.chmod(0o755)  # as where a state folder lies in an open home
    for name in ("credentials", "connection.json", "ray_token", "data", "server.log"):
        assert (own_state / name).exists()
        assert as_nobody("cat", str(own_state / name)).returncode != 0
    assert as_nobody("ls", str(own_state)).returncode != 0


def test_rays_files_cannot_be_read_and_go_with_it(own_state: Path):
    around = private_folder(short=True)
    left, lock = (
        around / f"e-{os.getpid()}",
        around / f"e-{os.getpid()}.held",
    )  # of one that was killed
    left.mkdir()
    lock.touch()
    with session.embedded():
        folder = next(path.parent for path in around.glob(f"e-*/{session.cluster_id()}"))
        assert (folder / "session_latest/logs").is_dir()
        assert as_nobody("ls", str(folder / "session_latest/logs")).returncode != 0
        assert not left.exists()
        assert not lock.exists()
    assert not folder.exists()
    token = Path(os.environ[session.TOKEN_PATH])
    assert token.stat().st_mode & 0o077 == 0
