"""What keeps the nodes of the cluster on this machine up."""

import subprocess
from pathlib import Path

from infra.local import cluster
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
