"""What keeps the nodes of the cluster on this machine up."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.local import cluster, s3
from tests import pace


def said(command: str, pid: Path) -> list[str]:
    """Runs bash whose `sleep` only says for how long."""
    bash = f'sleep() {{ echo "$1"; }}; {cluster.kept_up(command, pid)}'
    done = subprocess.run(
        ["bash", "-c", bash], capture_output=True, text=True, timeout=pace.hangs_after_s(60)
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_a_node_that_cannot_start_is_tried_ever_more_rarely_until_its_folder_is_gone(
    tmp_path: Path,
):
    pid, log = tmp_path / "state" / "node.pid", tmp_path / "log"
    pid.parent.mkdir()
    try_nine_times = f"echo >> {log}; [ $(wc -l < {log}) -lt 9 ] || rm -r {pid.parent}"
    assert said(try_nine_times, pid) == ["2", "4", "8", "16", "32", "64", "120", "120"]


def test_one_that_has_lasted_is_restarted_at_once_and_not_beside_another_cluster(tmp_path: Path):
    pid, log = tmp_path / "node.pid", tmp_path / "log"
    lasted = f"SECONDS=30; echo >> {log}; [ $(wc -l < {log}) -lt 3 ] || echo 1 > {pid}"
    assert said(lasted, pid) == ["2", "2"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state of its own, without any cluster."""
    monkeypatch.setenv("STUDY_STATE_DIR", str(tmp_path))
    return tmp_path


def test_a_number_that_is_another_programs_by_now_is_left_alone(own: Path):
    """A leader has died, and what it started holds its lock: its number may be anybody's."""
    with s3.held_by_child(own / "node-0.lock"):
        (own / "node-0.pid").write_text(str(os.getpid()))
        assert cluster.nodes() == []
        assert not cluster.down()


def test_a_node_whose_leader_has_died_is_ended_too(own: Path):
    place = f"--temp-dir={cluster.folder()}/1"
    other = subprocess.Popen(["sleep", "600"])
    node = subprocess.Popen(["bash", "-c", "sleep 600; true", place])  # as `ray start` names it
    try:
        assert cluster.down()
        node.wait(pace.hangs_after_s(30))
        assert other.poll() is None
    finally:
        for process in (node, other):
            process.kill()
            process.wait()
