"""Temporary folders: gone at the end, and what killed processes left at the next beginning."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.files import scratch
from tests.conftest import REPO

PURPOSE = f"test-{os.getpid()}"  # not that of another run of these tests
HOLD = """
import sys, time
from pipeline.files import scratch
with scratch(sys.argv[1]) as folder:
    (folder / "large").write_text("content")
    print(folder, flush=True)
    time.sleep(600)
"""


def held() -> tuple[subprocess.Popen[str], Path]:
    """Starts a process with a temporary folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, PURPOSE], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_killed_processes_left_is_deleted_and_what_lives_stays():
    (killed, left), (alive, kept) = held(), held()
    try:
        killed.kill()
        killed.wait()
        assert (left / "large").exists()
        with scratch(PURPOSE) as mine:
            assert mine.stat().st_mode & 0o077 == 0
            assert not left.exists()
            assert (kept / "large").exists()
        assert not mine.exists()
        assert not mine.with_suffix(".held").exists()
    finally:
        alive.kill()
        alive.wait()


def test_another_purpose_is_left_alone():
    process, folder = held()
    process.kill()
    process.wait()
    with scratch(f"other-{PURPOSE}"):
        assert folder.exists()
    with scratch(PURPOSE):
        assert not folder.exists()
