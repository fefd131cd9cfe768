"""How a command ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import command
from tests import pace
from tests.conftest import REPO


def ended(work: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
from pipeline import command
from pipeline.errors import DataError
atexit.register(print, "at exit")
def work():
    {work}
command.main(work)
"""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=pace.hangs_after_s(120),
        check=False,
    )


@pytest.mark.parametrize(
    "work, status, said",
    [("print('done')", 0, ""),
     ("raise DataError('bad')", 2, "error: bad\n"),
     ("raise OSError(28, 'No space left on device', 'there')", 2, "error: there: No space left"),
     ("raise KeyboardInterrupt('detached')", 130, "detached\n"),
     ("raise SystemExit(3)", 3, ""),
     ("1 / 0", 1, "ZeroDivisionError")],
)  # fmt: skip
def test_its_status_and_what_it_says(work: str, status: int, said: str):
    done = ended(work)
    assert done.returncode == status
    assert said in done.stderr
    assert done.stdout.endswith("at exit\n")


def test_what_runs_beside_it_comes_to_its_end():
    done = ended("threading.Thread(target=lambda: (time.sleep(0.3), print('beside it'))).start()")
    assert done.stdout == "beside it\nat exit\n"


def test_an_executor_that_nobody_has_shut_down_ends_too():
    done = ended(
        "pool = ThreadPoolExecutor(); pool.submit(time.sleep, 0.2); pool.submit(print, 'by it')"
    )
    assert done.stdout == "by it\nat exit\n"


def test_output_that_cannot_be_written_is_a_failure():
    code = "from pipeline import command; command.main(lambda: print('x'))"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            env=buffered,
            timeout=pace.hangs_after_s(120),
            check=False,
        )
    assert done.returncode == 120  # as Python ends then


@pytest.mark.parametrize("words, is_dvc", [
    ("/a/.venv/bin/python3.11 /a/.venv/bin/dvc repro", True), ("dvc repro", True),
    ("python -m dvc repro", True), ("screen -S dvc", False), ("tmux new -s dvc", False),
    ("python -m dvcx repro", False), ("python", False), ("", False),
])  # fmt: skip
def test_dvc_is_told_from_terminals_that_are_called_so(words: str, is_dvc: bool):
    assert command._is_dvc(words.split()) == is_dvc


def test_it_has_not_begun_before_whoever_started_it():
    """Linux tells the boot in whole seconds: by that clock it may have begun up to a second too early."""
    before = time.time()
    began = float(ended("print(command.begun())").stdout.split()[0])
    ticks_s = 2 / os.sysconf("SC_CLK_TCK")
    assert before - ticks_s <= began <= time.time()


@pytest.mark.parametrize(
    "edit, status",
    [("base_lr: 2", 0), ("seed: 2", 2)],
    ids=["another row's", "this row's"],
)
def test_a_stage_whose_parameters_are_edited_while_it_runs_fails(
    edit: str, status: int, tmp_path: Path
):
    """DVC would note the edited ones beside the result of the old."""
    (tmp_path / "params.yaml").write_text("one: {seed: 1}\ntwo: {base_lr: 1}\n")
    code = f"""
from pathlib import Path
from ruamel.yaml import YAML
from pipeline import command
def work(name):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace({edit.replace("2", "1")!r}, {edit!r}))
command.stage(work, lambda name: YAML(typ="safe").load(Path("params.yaml").read_text())[name])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "one"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)}, timeout=pace.hangs_after_s(120),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert ("edited while it ran" in done.stderr) == bool(status)
