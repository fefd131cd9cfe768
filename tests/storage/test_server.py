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
from pipeline.errors import StorageError
from tests.conftest import REPO


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
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


def test_four_starters_at_once_start_one(fresh: Path):
    code = "from infra.local import s3; print(s3.ensure_running().pid)"
    starters = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({starter.communicate(timeout=60)[0] for starter in starters}) == 1


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
    psutil.Process(server.pid).wait(5)
    assert s3.ensure_running().pid != server.pid
