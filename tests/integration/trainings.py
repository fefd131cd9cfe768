"""What the tests of kills, clusters and hosts look at: a study's trainings, begun, watched, compared."""

import hashlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pipeline import command
from pipeline.checkpoint import Record
from pipeline.data import dataset
from pipeline.params import load, row_of
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.training.history import history_digest, parse_history_csv
from pipeline.training.identity import run_key
from pipeline.training.schedule import load_schedule
from stages import check, fetch
from stages import prepare as prepare_data
from tests import pace
from tests.conftest import outside, run_in

if TYPE_CHECKING:
    from mlflow import MlflowClient


STARTED: list[subprocess.Popen[str]] = []


def start(
    study: Path, *command: str, in_terminal: bool = False, **variables: str
) -> subprocess.Popen[str]:
    """Starts a command of the virtual environment in a study's folder; its output is one stream.

    `in_terminal`: as the leader of a group of processes, which gets the keyboard's signals.
    """
    process = subprocess.Popen(
        command, cwd=study, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=outside(**variables), start_new_session=in_terminal,
    )  # fmt: skip
    STARTED.append(process)
    return process


def end_all() -> None:
    """Ends what `start` started and a test that failed has left, so that it does not slow the others down."""
    while STARTED:
        if (process := STARTED.pop()).poll() is None:
            whole = psutil.Process(process.pid)
            for one in (*whole.children(recursive=True), whole):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()


def prepare(study: Path) -> None:
    """Makes the digits ready, as `dvc repro prepare` does, but with the time that it takes DVC alone."""
    assert run_in(study, "python", "-m", "infra.local", "up").returncode == 0
    with chdir(study):
        for stage in (check, fetch, prepare_data):
            stage.main()


def here(
    study: Path, module: str, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a stage or command in a study's folder as `run_in` does, but in this process, which has torch and Ray.

    For what needs no process of its own and no code but this repository's: starting one takes two seconds.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch, chdir(study), redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        patch.setattr(sys, "argv", [module, *words])
        for name, value in variables.items():
            patch.setenv(name, value)
        status = command._status_of(import_module(module).main)
    return subprocess.CompletedProcess([module, *words], status, out.getvalue(), err.getvalue())


def said_by(process: subprocess.Popen[str]) -> str:
    """Waits for the end of a command; returns what it has printed."""
    return process.communicate(timeout=pace.hangs_after_s(300))[0]


@dataclass(frozen=True)
class Caught:
    """A command that a test disturbs in the middle of its work; it stands still until it `goes_on`."""

    process: subprocess.Popen[str]
    tree: list[psutil.Process]

    def is_killed(self) -> None:
        """It alone: what it started finds out by itself."""
        self.process.kill()
        self.process.wait()
        self.goes_on()

    def goes_on(self) -> None:
        for one in self.tree:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def caught(begin: Callable[[], subprocess.Popen[str]], in_the_middle: Callable[[], bool]) -> Caught:
    """Returns a command in the middle of its work; if the test has looked too late, it is begun again.

    `begin` forgets what was done before.
    """
    for _ in range(10):
        process = begin()
        wait_for(lambda one=process: in_the_middle() or one.poll() is not None)
        tree = []
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(process.pid)
            tree = [whole, *whole.children(recursive=True)]
            for one in tree:
                with suppress(psutil.NoSuchProcess):
                    one.suspend()
        found = Caught(process, tree)
        if in_the_middle() and process.poll() is None:
            return found
        found.goes_on()
        said_by(process)
    raise AssertionError("ten times it had ended before it was looked at")


def lives(process: psutil.Process) -> bool:
    """Tells whether a process has not ended; one that nobody has asked for its end yet has."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def key_of(study: Path, name: str, **changes: object) -> str:
    """Returns the run key of a row, changed as wanted."""
    row = row_of(load(study / "params.yaml"), name).model_copy(update=changes)
    digest = dataset.load(study / "data/arrays.safetensors").digest
    return run_key(name, row, load_schedule(study / row.schedule), digest)[0]


def store_of(study: Path, name: str) -> CheckpointStore:
    """Returns the checkpoints of a row on the S3 that the environment names."""
    return CheckpointStore(Storage(), key_of(study, name))


def stages_run(output: str) -> list[str]:
    """Returns the stages that DVC ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def update_of(store: CheckpointStore) -> int:
    """Returns the update of the last checkpoint."""
    facts = store.facts()
    return facts.update if facts else 0


def wait_for(condition: Callable[[], bool], what: str = "waited in vain") -> float:
    """Waits until a condition holds; returns the seconds that it took."""
    began, limit = time.monotonic(), pace.hangs_after_s(240)
    while not condition():
        assert time.monotonic() - began < limit, f"{what}: not within {limit:.0f} s"
        time.sleep(0.2)  # looking takes processor time too
    return time.monotonic() - began


def result_of(study: Path, name: str) -> tuple[str, str]:
    """Returns the sha256 of a row's weights and the digest of its history, each line there once."""
    folder = study / "runs" / name
    history = parse_history_csv((folder / "history.csv").read_text())
    assert [r.update for r in history] == sorted({r.update for r in history})
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return sha256, history_digest(history)


def require_logged_once(client: "MlflowClient", run: str, history: list[Record]) -> None:
    """Asserts that a run in MLflow has every number of a history, each once."""
    for name in set(vars(history[0])) - {"update", "precision"}:
        logged = client.get_metric_history(run, name)
        assert sorted((metric.step, metric.value) for metric in logged) == [
            (record.update, getattr(record, name)) for record in history
        ]
