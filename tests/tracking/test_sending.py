"""MLflow is published to by processes of their own: whatever its server does, nobody waits for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from pipeline.errors import TrackingError
from pipeline.storage.objects import Storage
from pipeline.tracking import unsent, waiting
from pipeline.tracking.run import LEFT, is_gone, sender_lock
from pipeline.tracking.run import sender as sender_of
from pipeline.tracking.sending import Sender
from pipeline.tracking.tracker import Address, Tracker
from tests import pace
from tests.checkpoints import record
from tests.outages import Answer, MlflowServer, breaks, hangs, server, trickles

ADDRESS = Address("study", "digest", "data")


def training(name: str = "net") -> dict[str, Any]:
    return {
        "name": name,
        "key": f"key of {name}",
        "instance": 1,
        "tags": {},
        "params": {"depth": 20},
    }


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + pace.hangs_after_s(60)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def run_of(uri: str, name: str = "net") -> Any:
    client = MlflowClient(uri)
    if (experiment := client.get_experiment_by_name("resnet-study")) is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.run_key = 'key of {name}'")
    assert len(found) <= 1
    return found[0] if found else None


def study_of(uri: str) -> Any:
    return MlflowClient(uri).get_run(run_of(uri).data.tags["mlflow.parentRunId"])


def steps(uri: str) -> list[int]:
    run = run_of(uri)
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "val_loss") if run else []
    return sorted(metric.step for metric in history)


def test_curves_are_live_and_end_with_the_trainings_status(uri: str):
    with Sender(ADDRESS, here=True, begin_s=0, goodbye_s=pace.hangs_after_s(60)) as sender:
        usage = [{"system/cpu_utilization_percentage": 97.5}]
        sender.tell(training(), [record(10)], "RUNNING", usage)
        wait_for(lambda: run_of(uri) and steps(uri) == [10])
        assert run_of(uri).info.status == "RUNNING"
        assert run_of(uri).data.metrics["system/cpu_utilization_percentage"] == 97.5
        sender.tell(training(), [record(10), record(20)], "FINISHED")
    wait_for(lambda: sender._process.poll() is not None)
    assert run_of(uri).info.status == "FINISHED" and steps(uri) == [10, 20]
    assert run_of(uri).data.params["depth"] == "20"
    Tracker(ADDRESS, lambda key, path: None).settle()
    assert study_of(uri).info.status == "RUNNING"  # nobody was killed: its report is still to come


TRAINER = """
import json, sys, time
from pipeline.checkpoint import Record
from pipeline.tracking.sending import Sender
from pipeline.tracking.tracker import Address
here, limit_s, address, training, record = sys.argv[1] == "here", float(sys.argv[2]), *map(json.loads, sys.argv[3:])
with Sender(Address(**address), here=here, begin_s=0, goodbye_s=limit_s) as sender:
    sender.tell(training, [Record(**record)], "RUNNING")
    print("told", flush=True)
    time.sleep(600)
"""


def trainer(where: str) -> subprocess.Popen[bytes]:
    """Starts a process that has told its sender of a training, and trains on."""
    said = (asdict(ADDRESS), training(), asdict(record(10)))
    limit = str(pace.hangs_after_s(60))
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, where, limit, *map(json.dumps, said)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"told\n"
    return process


@pytest.mark.parametrize("where, status", [("here", "KILLED"), ("there", "RUNNING")])
def test_a_killed_trainings_run_says_so_and_its_sender_ends(uri: str, where: str, status: str):
    process = trainer(where)
    wait_for(lambda: run_of(uri) and steps(uri) == [10])
    children = _children(process.pid)
    assert len(children) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(_lives(child) for child in children))
    assert run_of(uri).info.status == status


def test_a_trainer_killed_together_with_its_sender_is_found_out(uri: str):
    process = trainer("here")
    wait_for(lambda: run_of(uri) and steps(uri) == [10])
    Tracker(ADDRESS, lambda key, path: None).settle()
    # they live
    assert (run_of(uri).info.status, study_of(uri).info.status) == ("RUNNING", "RUNNING")
    (sender,) = _children(process.pid)
    os.kill(sender, signal.SIGKILL)
    process.kill()
    process.wait()
    wait_for(lambda: not _lives(sender))
    Tracker(ADDRESS, lambda key, path: None).settle()
    assert (run_of(uri).info.status, study_of(uri).info.status) == ("KILLED", "KILLED")
    with Sender(ADDRESS, here=True, begin_s=0, goodbye_s=pace.hangs_after_s(60)) as again:
        again.tell(training(), [record(10), record(20)], "FINISHED")
    wait_for(lambda: run_of(uri).info.status == "FINISHED")
    assert study_of(uri).info.status == "RUNNING"  # until its report


def test_a_server_killed_and_started_again_in_mid_training_misses_no_line(
    uri: str, monkeypatch: pytest.MonkeyPatch
):
    with MlflowServer(uri) as mlflow:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
        with Sender(ADDRESS, here=True, begin_s=0, goodbye_s=pace.hangs_after_s(60)) as sender:
            sender.tell(training(), [record(10)], "RUNNING")
            wait_for(lambda: run_of(uri) and steps(uri) == [10])
            mlflow.kill()
            told = [record(update) for update in (10, 20, 30)]
            sender.tell(training(), told[:2], "RUNNING")
            mlflow.start()
            sender.tell(training(), told, "FINISHED")
        wait_for(lambda: run_of(uri).info.status == "FINISHED")
    for name in ("val_loss", "train_error_pct"):
        history = MlflowClient(uri).get_metric_history(run_of(uri).info.run_id, name)
        assert sorted(metric.step for metric in history) == [10, 20, 30]


def test_what_ends_at_once_is_left_to_the_report(uri: str):
    with Sender(ADDRESS, here=True, begin_s=pace.hangs_after_s(60)) as sender:
        sender.tell(training(), [record(10)], "FINISHED")
    wait_for(lambda: sender._process.poll() is not None)
    assert sender._process.returncode == 0
    assert run_of(uri) is None


def test_what_fails_at_once_is_sent(uri: str):
    limit_s = pace.hangs_after_s(60)
    with Sender(ADDRESS, here=True, begin_s=limit_s, goodbye_s=limit_s) as sender:
        sender.tell(training(), [record(10)], "FAILED")
    wait_for(lambda: sender._process.poll() is not None)
    assert run_of(uri).info.status == "FAILED"
    assert study_of(uri).info.status == "FAILED"  # until it goes on
    (data,) = run_of(uri).inputs.dataset_inputs
    assert data.dataset.name == "prepared data"
    with Sender(ADDRESS, here=True, begin_s=0, goodbye_s=limit_s) as sender:
        sender.tell(training(), [record(10)], "RUNNING")
        wait_for(lambda: study_of(uri).info.status == "RUNNING")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid: int) -> bool:
    """Tells whether any thread of a process does: the first may have ended, and another hold its files still."""
    try:
        threads = [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return _lives(pid)  # one of them ended while they were read
    return any(stat.rpartition(")")[2].split()[0] not in "ZX" for stat in threads)


@pytest.mark.parametrize("answer", [hangs, trickles, breaks])
def test_who_trains_waits_for_no_server(
    answer: Answer, storage: Storage, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    with server(answer) as address:
        with_password = address.replace("://", "://user:secret@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", with_password)
        with Sender(ADDRESS, here=True, begin_s=0) as sender:
            for update in range(10, 500, 10):
                sender.tell(training(), [record(done) for done in range(10, update, 10)], "RUNNING")
            (child,) = [one for one in _children(os.getpid()) if one == sender._process.pid]
            psutil.Process(child).suspend()  # so it cannot end by itself
        assert sender._process.poll() is None  # it was not waited for
        psutil.Process(child).resume()
        wait_for(lambda: sender._process.poll() is not None)
        assert not _lives(child)
    said = capfd.readouterr().err
    assert f"warning: MLflow at {address}" in said and "secret" not in said
    assert said.count("warning") <= 2  # not at every report


def test_a_failure_that_a_server_did_not_take_is_sent_by_whoever_publishes_next(
    uri: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """`report` knows of results alone: the run would be called killed for ever, or not be there."""
    with server(hangs) as address, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        with Sender(ADDRESS, here=True, begin_s=0, goodbye_s=1.0) as sender:
            sender.tell(training(), [record(10)], "FAILED")
        wait_for(lambda: sender._process.poll() is not None)
    assert "has not taken everything yet" in capfd.readouterr().err
    tracker = Tracker(ADDRESS, lambda key, path: None)
    other = Address("another study", ADDRESS.params_digest, ADDRESS.data_digest)
    unsent.send(other, tracker)
    assert run_of(uri) is None
    for _ in range(2):  # the second time there is nothing left
        unsent.send(ADDRESS, tracker)
        assert run_of(uri).info.status == "FAILED" and steps(uri) == [10]
    assert not list(unsent._folder(ADDRESS).iterdir())
    unsent.keep(ADDRESS, {"training": training(), "history": [{"of": "an earlier version"}]})
    unsent.send(ADDRESS, tracker)
    assert not list(unsent._folder(ADDRESS).iterdir())


@pytest.mark.parametrize("answer", [hangs, trickles, breaks])
def test_the_report_waits_for_a_bounded_time_and_says_what_is_left(
    answer: Answer, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    ask = (
        "from pipeline.tracking.tracker import Address, Tracker; print('MLflow has 3 of 9 runs', flush=True); "
        "Tracker(Address('s', 'd', 'd'), lambda key, path: None)"
    )
    monkeypatch.setattr(waiting, "COMMAND", (sys.executable, "-c", ask))
    with server(answer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert not waiting.publish(pace.hangs_after_s(3))
    said = capfd.readouterr().err
    assert "warning: MLflow has 3 of 9 runs: " in said
    assert "`make publish` sends the rest" in said


@pytest.mark.parametrize("answer", [hangs, trickles])
def test_publishing_by_hand_ends_too(answer: Answer, monkeypatch: pytest.MonkeyPatch):
    with server(answer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(TrackingError, match=f"{address} has not taken a run within 1 s"):  # noqa: SIM117
            with waiting.within(1.0):
                Tracker(ADDRESS, lambda key, path: None)


def test_who_sends_is_gone_only_where_that_can_be_known(tmp_path: Path):
    (lock := sender_lock()).touch()
    host, boot, folder, path = (said := sender_of(lock)).split(" ", 3)
    with FileLock(lock):
        assert not is_gone(said)
        assert is_gone(f"{host} before {folder} {path}")  # the host was started again
        assert not is_gone(f"another {boot} {folder} {path}")
    assert not is_gone(f"{host} {boot} 1-2 {path}")  # in another job's /tmp
    (mine := tmp_path / "mine").touch()  # another member of a team may have written the tag
    assert not is_gone(f"{host} {boot} {folder} {mine}")
    assert not is_gone(sender_of(mine)) and mine.exists()
    assert is_gone(said) and is_gone(said)  # nobody holds it, and then it is not there
    assert not any(map(is_gone, ("", LEFT, f"{host} {path}")))  # the last by an earlier version


def test_files_that_were_sent_before_an_interruption_are_not_sent_again(
    uri: str, tmp_path: Path, storage: Storage
):
    files, asked = [tmp_path / name for name in "abc"], list[str]()
    for file in files:
        file.write_text(file.name)

    def slow(key: str, path: Path) -> None:
        asked.append(path.name)
        if asked.count("b") == 1 and path.name == "b":
            raise OSError("out of time")
        storage.upload(key, path)

    child = Tracker(ADDRESS, slow).training(training(), ())
    with pytest.raises(TrackingError, match="out of time"):
        child.artifacts(files)
    child.artifacts(files)
    child.artifacts(files)
    assert asked == ["a", "b", "b", "c"]


@pytest.mark.parametrize("left", [b"", b'{"training": {"na'])
def test_a_sender_ends_even_if_its_trainer_died_in_the_middle_of_a_line(uri: str, left: bytes):
    limit_s = pace.hangs_after_s(60)
    said = {"study": asdict(ADDRESS), "here": True, "begin_s": 0, "goodbye_s": limit_s}
    header = json.dumps(said).encode() + b"\n"
    line = {
        "training": training(),
        "history": [asdict(record(10))],
        "status": "RUNNING",
        "usage": [],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.tracking.sending"], stdin=subprocess.PIPE
    )
    process.communicate(header + json.dumps(line).encode() + b"\n" + left, timeout=2 * limit_s)
    assert process.returncode == 0
    assert run_of(uri).info.status == "KILLED"
