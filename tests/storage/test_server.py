"""The embedded S3 server: one for the machine, on loopback, its keys kept."""

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local import s3
from pipeline.errors import StorageError, UnreachableError
from pipeline.storage.bucket import EMBEDDED
from tests import pace
from tests.conftest import REPO


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(EMBEDDED, "")  # so that it is restored afterwards
    monkeypatch.setenv("STUDY_STATE_DIR", str(tmp_path / "state"))
    yield tmp_path / "state"
    s3.stop()


def test_it_starts_once_and_stops(fresh: Path):
    first = s3.ensure_running()
    assert s3.ensure_running() == first
    assert s3.stop()
    assert s3.running() is None
    assert not s3.stop()


def test_it_comes_back_on_the_same_port(fresh: Path):
    endpoint = s3.ensure_running().endpoint
    s3.stop()
    assert s3.ensure_running().endpoint == endpoint


def test_a_full_disk_that_left_its_port_empty_is_no_end(fresh: Path):
    s3.ensure_running()
    s3.stop()
    (fresh / "port").write_text("")
    assert s3.ensure_running().endpoint


def test_what_a_killed_upload_has_left_goes_when_it_starts_again(fresh: Path):
    storage = s3.connect()
    there = {"Bucket": storage.bucket, "Key": "large"}
    begun = storage._client.create_multipart_upload(**there)["UploadId"]
    storage._client.upload_part(**there, UploadId=begun, PartNumber=1, Body=b"x" * 2**20)
    storage.put("small", b"y")
    s3.stop()
    assert sum(path.stat().st_size for path in (fresh / "data").rglob("*")) > 2**20
    assert s3.connect().get("small") == b"y"
    assert [path.name for path in (fresh / "data").rglob("*") if path.is_file()] == ["small"]


def test_it_listens_on_loopback_alone(fresh: Path):
    process = psutil.Process(s3.ensure_running().pid)
    listening = [c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_the_keys_are_private_and_not_in_the_process_list(fresh: Path):
    process = psutil.Process(s3.ensure_running().pid)
    path = s3.credentials_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    access_key, secret = s3._keys()
    assert not any(access_key in word or secret in word for word in process.cmdline())


def test_four_who_connect_at_once_to_a_fresh_folder_start_one(fresh: Path):
    code = "from infra.local import s3; s3.connect(); print(s3.running().pid)"
    starters = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert (
        len({starter.communicate(timeout=pace.hangs_after_s(60))[0] for starter in starters}) == 1
    )


def test_a_port_in_use_is_told(fresh: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("STUDY_S3_PORT", str(port))
        with pytest.raises(StorageError, match=f"port {port} on 127.0.0.1 is in use"):
            s3.ensure_running()


def test_a_server_that_died_is_started_again(fresh: Path):
    server = s3.ensure_running()
    psutil.Process(server.pid).kill()
    psutil.Process(server.pid).wait()
    assert s3.ensure_running().pid != server.pid


def test_a_corrected_clock_does_not_lose_it(fresh: Path, monkeypatch: pytest.MonkeyPatch):
    server = s3.ensure_running()
    shifted = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: shifted(process) + 1)
    assert s3.ensure_running() == server
    assert s3.stop()


@pytest.mark.parametrize("lost", ["server.pid", "connection.json", "host", "server.lock"])
def test_it_is_found_whatever_its_starter_did_not_come_to_write(fresh: Path, lost: str):
    server = s3.ensure_running()
    s3.connect()
    (fresh / lost).unlink()
    assert s3.ensure_running() == server
    assert s3.stop()
    assert s3.running() is None


def test_one_of_an_earlier_version_is_found(fresh: Path):
    """It held no lock, and wrote server.json."""
    server = s3.ensure_running()
    (fresh / "server.lock").unlink()
    (fresh / "server.pid").replace(fresh / "server.json")
    assert s3.connect().place.endpoint == server.endpoint
    assert s3.stop()


def test_who_has_connected_once_starts_a_dead_server_again(fresh: Path):
    s3.connect().put("a", b"1")
    psutil.Process(s3.ensure_running().pid).kill()
    assert s3.connect().get("a") == b"1"


def test_a_stage_has_a_server_that_dies_started_again(fresh: Path):
    with s3.kept() as storage:
        storage.put("a", b"1")
        psutil.Process(s3.ensure_running().pid).kill()
        assert storage.get("a") == b"1"


def test_a_stage_does_not_start_one_again_that_was_stopped(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3, "LOOK_EVERY_S", 0.01)
    with s3.kept() as storage:
        s3.stop()
        storage.patience_s = 0.5
        with pytest.raises(UnreachableError, match="cannot be reached"):
            storage.get("a")
        assert s3.running() is None


def test_a_second_host_starts_no_second_server_over_one_folder(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
):
    s3.ensure_running()
    (fresh / "host").write_text("another-host")
    monkeypatch.setattr(s3, "listens_for_us", lambda port: False)  # it listens on that host alone
    with pytest.raises(StorageError, match=r"runs on another-host.*STUDY_STATE_DIR"):
        s3.ensure_running()
    (fresh / "host").unlink()


def test_one_that_does_not_answer_is_told(fresh: Path, monkeypatch: pytest.MonkeyPatch):
    s3.ensure_running()
    monkeypatch.setattr(s3, "_accepts_our_keys", lambda port: False)
    with pytest.raises(StorageError, match="does not answer to its keys: `make down`"):
        s3.ensure_running()


def test_another_users_program_on_its_port_is_not_asked(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
):
    s3.ensure_running()
    with monkeypatch.context() as another:
        another.setattr("infra.local.s3.os.getuid", lambda: 12345)
        another.setattr(s3, "_accepts_our_keys", lambda port: pytest.fail("it was asked"))
        assert s3.running() is None
