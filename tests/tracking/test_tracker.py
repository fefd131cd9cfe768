"""Publishing to a real MLflow: each line once, and no harm by an outage."""

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import Timeout
from mlflow import MlflowClient

from pipeline.checkpoint import Record
from pipeline.errors import TrackingError
from pipeline.storage.layout import project
from pipeline.storage.objects import Storage
from pipeline.tracking import turn
from pipeline.tracking.run import Child, alone, make_tables
from pipeline.tracking.tracker import Address, Tracker
from tests import pace
from tests.checkpoints import record
from tests.conftest import REPO


def lines(last: int) -> list[Record]:
    return [record(update) for update in range(10, last + 1, 10)]


@pytest.fixture
def tracker(storage: Storage, uri: str) -> Tracker:
    return tracker_of(storage)


def tracker_of(storage: Storage, digest: str = "digest") -> Tracker:
    return Tracker(Address("study", digest, "data"), storage.upload)


def steps(child: Child, name: str) -> list[int]:
    return sorted(m.step for m in child._client.get_metric_history(child.run_id, name))


def test_what_was_missed_is_sent_later_and_nothing_twice(tracker: Tracker):
    child = tracker.child("training", "net", "key")
    child.history(lines(30))
    child.history(lines(30))
    child.history(lines(60))
    assert steps(child, "val_loss") == [10, 20, 30, 40, 50, 60]
    assert steps(child, "seconds") == [10, 20, 30, 40, 50, 60]


def test_a_long_history_goes_in_several_requests(tracker: Tracker):
    child = tracker.child("training", "net", "key")
    child.history(lines(10_000))
    assert len(steps(child, "val_loss")) == 1000


def test_of_several_values_the_latest_counts(tracker: Tracker):
    child = tracker.child("training", "net", "key")
    child.metrics({"final_test_error_pct": 9.0})
    time.sleep(0.01)
    child.metrics({"final_test_error_pct": 7.0})
    assert child._client.get_run(child.run_id).data.metrics["final_test_error_pct"] == 7.0


def test_a_run_is_found_again_by_its_key(tracker: Tracker, storage: Storage, tmp_path: Path):
    first = tracker.child("training", "net", "key").run_id
    again = tracker_of(storage)
    assert again.parent == tracker.parent
    assert again.child("training", "net", "key").run_id == first
    assert again.child("training", "net", "other").run_id != first


def test_a_row_moves_to_the_study_that_published_it_last(
    tracker: Tracker, storage: Storage, tmp_path: Path
):
    child = tracker.child("training", "net", "key")
    changed = tracker_of(storage, "another digest")
    assert changed.parent != tracker.parent
    changed.child("training", "net", "key")
    tags = child._client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == changed.parent


def test_artifacts_are_in_the_bucket_and_uploaded_once(
    tracker: Tracker, storage: Storage, tmp_path: Path
):
    (tmp_path / "a.txt").write_text("hello")
    child = tracker.child("training", "net", "key")
    child.artifacts([tmp_path / "a.txt"])
    (key,) = [key for key in storage.keys("mlflow/") if child.run_id in key]
    assert storage.get(key) == b"hello"
    storage.delete(key)
    child.artifacts([tmp_path / "a.txt"])  # known by its sha256: not sent again
    assert storage.get(key) is None


def test_an_artifact_whose_replacement_was_cut_off_has_no_sum(
    tracker: Tracker, storage: Storage, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`report` kills its publisher: `make fsck` must not call the half of it damaged, and the next sends it."""
    (file := tmp_path / "a.txt").write_text("hello")
    child = tracker.child("training", "net", "key")
    child.artifacts([file])

    def sums() -> list[str]:
        return [
            name for name in MlflowClient(uri).get_run(child.run_id).data.tags if "a.txt" in name
        ]

    assert len(sums()) == 1
    file.write_text("other")

    def cut_off(key: str, path: Path) -> None:
        storage.put(key, b"other")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(child, "_upload", cut_off)
        with pytest.raises(KeyboardInterrupt):
            child.artifacts([file])
    assert sums() == []
    child.artifacts([file])
    assert len(sums()) == 1


def test_an_experiment_whose_artifacts_only_we_could_fetch_is_put_aside(
    uri: str, storage: Storage, tmp_path: Path
):
    client = MlflowClient(uri)
    client.create_experiment("resnet-study", f"s3://{storage.bucket}/mlflow")
    tracker = tracker_of(storage)
    names = [one.name for one in client.search_experiments() if one.name != "Default"]
    assert len(names) == 2
    assert any(name.startswith("resnet-study before ") for name in names)
    (tmp_path / "a.txt").write_text("hello")
    child = tracker.child("training", "net", "key")
    child.artifacts([tmp_path / "a.txt"])
    assert storage.get(f"mlflow/{child.run_id}/artifacts/a.txt") == b"hello"


def test_a_dead_server_is_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:9") as caught:
        Tracker(Address("study", "digest", "data"), lambda key, path: None)
    assert "secret" not in str(caught.value)


def test_each_instance_of_a_key_is_a_run_linked_to_the_one_before(tracker: Tracker):
    first = tracker.child("training", "net", "key")
    first.history(lines(30))
    again = tracker.child("training", "net", "key", instance=2)
    again.history(lines(20))
    assert again.run_id != first.run_id
    assert steps(first, "val_loss") == [10, 20, 30]
    assert steps(again, "val_loss") == [10, 20]
    tags = again._client.get_run(again.run_id).data.tags
    assert tags["instance_before"] == first.run_id
    assert tracker.child("training", "net", "key", instance=2).run_id == again.run_id


def test_a_training_afresh_under_an_old_number_is_a_run_of_its_own(tracker: Tracker):
    """After `make forget`, or with another S3, instances are counted from 1 again: two trainings, no mixed curve."""

    def run(history: list[Record]) -> Child:
        child = tracker.child("training", "net", "key", history=history)
        child.history(history)
        return child

    def slower(last: int) -> list[Record]:
        return [replace(line, seconds=line.seconds * 1.5) for line in lines(last)]

    first = run(lines(30))
    assert run(lines(60)).run_id == first.run_id  # resumed
    assert run(lines(60)[:2]).run_id == first.run_id  # the last checkpoint was damaged
    assert run([]).run_id != first.run_id  # begun afresh, and nothing reported yet
    second = run(slower(60))
    assert run(slower(70)).run_id == second.run_id
    assert second.run_id != first.run_id
    assert second._client.get_run(second.run_id).data.tags["instance_before"] == first.run_id
    assert run(lines(60)).run_id == first.run_id  # who has the other results publishes them again
    for child, factor in ((first, 1.0), (second, 1.5)):
        sent = child._client.get_metric_history(child.run_id, "seconds")
        wanted = {line.update: factor * line.seconds for line in lines(70)}
        assert all(metric.value == wanted[metric.step] for metric in sent)
        assert len({metric.step for metric in sent}) == len(sent)


def test_a_run_and_an_experiment_that_were_deleted_are_made_again(
    tracker: Tracker, storage: Storage
):
    child = tracker.child("training", "net", "key")
    child.history(lines(20))
    child._client.delete_run(child.run_id)
    again = tracker.child("training", "net", "key")
    again.history(lines(20))
    assert steps(again, "val_loss") == [10, 20]
    child._client.delete_experiment(tracker._experiment)
    restored = tracker_of(storage).child("training", "net", "key")
    restored.history(lines(20))
    assert steps(restored, "val_loss") == [10, 20]


def test_the_status_is_the_trainings(tracker: Tracker):
    child = tracker.child("training", "net", "key")

    def status() -> str:
        return child._client.get_run(child.run_id).info.status

    assert status() == "RUNNING"
    for said in ("KILLED", "RUNNING", "FAILED", "RUNNING", "FINISHED"):
        child.status(said)
        assert status() == said
    child.status("KILLED")  # by a process that did not know
    assert status() == "FINISHED"


def test_parents_of_other_parameters_are_superseded(tracker: Tracker, storage: Storage):
    changed = tracker_of(storage, "another digest")
    changed.supersede()

    def superseded(of: Tracker) -> str | None:
        return of._client.get_run(of.parent).data.tags.get("superseded_by")

    assert superseded(tracker) == changed.parent
    assert superseded(changed) is None
    tracker.supersede()  # the parameters are as they were
    assert superseded(tracker) is None
    assert superseded(changed) == tracker.parent


def test_a_teams_member_supersedes_no_other_members_study(
    tracker: Tracker, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    def superseded(of: Tracker) -> str | None:
        return of._client.get_run(of.parent).data.tags.get("superseded_by")

    found = {}
    for name, digest in (("ada", "of ada"), ("bob", "of bob"), ("bob", "of bob, changed")):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        found[digest] = tracker_of(storage, digest)
        found[digest].supersede()
    assert superseded(found["of ada"]) is None and superseded(tracker) is None
    assert superseded(found["of bob"]) == found["of bob, changed"].parent


def test_of_two_runs_that_two_hosts_made_at_once_the_later_one_is_ended(tracker: Tracker):
    """Their clocks differed, so that each took its own for the older one."""
    client, identity = tracker._client, {"kind": "training", "run_key": "key", "instance": "1"}
    twins = [
        client.create_run(tracker._experiment, start_time=start_ms, tags=identity).info.run_id
        for start_ms in (2000, 1000)
    ]
    assert tracker.child("training", "net", "key").run_id == twins[1]
    later = client.get_run(twins[0])
    assert later.info.status == "KILLED"
    assert later.data.tags["superseded_by"] == twins[1]


def test_a_run_is_made_under_a_lock_of_the_host(tracker: Tracker, monkeypatch: pytest.MonkeyPatch):
    make, made = tracker._client.create_run, []

    def create(*arguments: object, **named: object) -> object:
        with pytest.raises(Timeout):
            alone(tracker._uri, tracker._experiment).acquire(timeout=0)
        made.append(make(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(tracker._client, "create_run", create)
    tracker.child("training", "net", "key")
    assert len(made) == 1


def test_who_finds_an_older_run_beside_its_own_deletes_its_own(tracker: Tracker):
    """As two hosts make it, whose locks know nothing of each other."""
    identity = {"kind": "training", "run_key": "key", "instance": "1"}
    theirs = tracker._client.create_run(tracker._experiment, start_time=1, tags=identity)
    assert tracker._create("net", identity, None, []).info.run_id == theirs.info.run_id
    assert len(tracker._find(identity)) == 1
    assert tracker.child("training", "net", "key").run_id == theirs.info.run_id


def test_hosts_that_share_a_bucket_make_a_run_in_turn(
    storage: Storage, uri: str, monkeypatch: pytest.MonkeyPatch
):
    tracker = Tracker(Address("study", "digest", "data"), storage.upload, storage)
    identity = {"kind": "training", "run_key": "key", "instance": "1"}
    what, made, has_it = tracker._making(identity, None), list[str](), threading.Event()

    def another_host() -> None:
        with turn.turn(storage, what):
            has_it.set()
            time.sleep(0.5)  # the other looks meanwhile, and finds none
            run = tracker._client.create_run(tracker._experiment, tags=identity)
            made.append(run.info.run_id)

    other = threading.Thread(target=another_host)
    other.start()
    assert has_it.wait(pace.hangs_after_s(60))
    assert tracker.child("training", "net", "key").run_id == tracker._find(identity)[0].info.run_id
    other.join()
    assert [run.info.run_id for run in tracker._find(identity)] == made
    # who has died in its turn keeps nobody for long
    monkeypatch.setattr(turn, "DEAD_S", 0.3)
    identity = {**identity, "run_key": "other"}
    storage.put(turn.key_of(tracker._making(identity, None)), b"of the dead")
    tracker.child("training", "net", "other")
    assert len(tracker._find(identity)) == 1
    assert list(storage.keys(f"{project()}/turns/")) == []


RACER = """
import sys
from contextlib import nullcontext
from pipeline.errors import TrackingError
from pipeline.storage.objects import Storage
from pipeline.tracking import tracker as module
from pipeline.tracking.tracker import Address, Tracker
from tests.checkpoints import record
print("ready", flush=True)
sys.stdin.readline()
storage = Storage() if sys.argv[1:] else None
if storage:  # as on hosts of their own, whose locks know nothing of each other
    module.alone = lambda *_: nullcontext()
tracker = Tracker(Address("study", "digest", "data"), lambda key, path: None, storage)
for number in range(3):
    while True:
        try:
            child = tracker.child("training", f"net-{number}", f"key-{number}")
            child.history([record(update) for update in range(10, 101, 10)])
            break
        except TrackingError:  # another host has deleted the run, which it had made at the very same moment
            if not storage:
                raise
"""


@pytest.mark.parametrize(
    "racers, hosts",
    [(3, ()), (3, ("hosts",)), pytest.param(20, (), marks=pytest.mark.trial),
     pytest.param(20, ("hosts",), marks=pytest.mark.trial)],
)  # fmt: skip
def test_many_publishers_at_once_make_one_run(
    tracker: Tracker, storage: Storage, racers: int, hosts: tuple[str, ...], tmp_path: Path
):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, *hosts], cwd=REPO, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(racers)
    ]  # fmt: skip
    for process in started:  # all have imported
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.close()
    for process in started:
        assert process.wait(pace.hangs_after_s(120)) == 0
    for number in range(
        3 if hosts else 0
    ):  # whoever publishes next ends what two hosts have made at once
        tracker.child("training", f"net-{number}", f"key-{number}")
    found = [
        run for run in tracker._client.search_runs([tracker._experiment])
        if "superseded_by" not in run.data.tags
    ]  # fmt: skip
    assert len(found) == 1 + 3  # the parent and three children
    for run in found:
        if run.data.tags["kind"] == "training":
            child = Child(tracker._client, "", run.info.run_id, storage.upload)
            assert steps(child, "val_loss") == list(range(10, 101, 10))


MAKING = "import sys; from pipeline.tracking.run import make_tables; make_tables(sys.argv[1])"


def test_a_database_whose_maker_was_killed_is_made_anew(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """MLflow cannot open what is left of its own making: a table is there that it is about to make."""
    path, address = tmp_path / "mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"
    part = tmp_path / "mlflow.db.part"
    process = subprocess.Popen([sys.executable, "-c", MAKING, address], cwd=REPO)
    deadline = time.monotonic() + pace.hangs_after_s(60)
    while not (part.exists() and part.stat().st_size > 300_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not path.exists()  # whole or not at all
    for file in tmp_path.glob("mlflow.db.part*"):  # as a version before this one left it
        file.rename(tmp_path / file.name.replace(".part", ""))
    make_tables(address)
    assert "is no whole database of MLflow's: it is" in capsys.readouterr().err
    client = MlflowClient(address)
    client.create_experiment("mine")
    before = path.stat().st_ino
    make_tables(address)  # what is whole stays
    assert path.stat().st_ino == before
    assert client.get_experiment_by_name("mine") is not None
    assert not [*tmp_path.glob("mlflow.db.part*"), *tmp_path.glob("mlflow.db-*")]


def test_a_database_that_is_not_mlflows_is_set_aside_and_not_lost(storage: Storage, tmp_path: Path):
    path = tmp_path / "mine.db"
    with closing(sqlite3.connect(path)) as mine:
        mine.execute("CREATE TABLE thesis (chapter TEXT)")
        mine.execute("INSERT INTO thesis VALUES ('one')")
        mine.commit()
    before = path.read_bytes()
    make_tables(f"sqlite:///{path}")
    assert (tmp_path / "mine.db.incomplete").read_bytes() == before
    assert MlflowClient(f"sqlite:///{path}").search_experiments()
