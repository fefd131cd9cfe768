"""Publishing to a real MLflow: each line once, and no harm by an outage."""

import time
from pathlib import Path

import pytest

from pipeline.checkpoint import Record
from pipeline.errors import TrackingError
from pipeline.storage.objects import Storage
from pipeline.tracking.tracker import Child, Tracker, tolerant
from tests.checkpoints import record


def lines(last: int) -> list[Record]:
    return [record(update) for update in range(10, last + 1, 10)]


@pytest.fixture
def tracker(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return Tracker("study", "digest", "data", storage.bucket, storage.upload)


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
    again = Tracker("study", "digest", "data", storage.bucket, storage.upload)
    assert again.parent == tracker.parent
    assert again.child("training", "net", "key").run_id == first
    assert again.child("training", "net", "other").run_id != first


def test_a_row_moves_to_the_study_that_published_it_last(
    tracker: Tracker, storage: Storage, tmp_path: Path
):
    child = tracker.child("training", "net", "key")
    changed = Tracker("study", "another digest", "data", storage.bucket, storage.upload)
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


def test_a_dead_server_is_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:9") as caught:
        Tracker("study", "digest", "data", "bucket", lambda key, path: None)
    assert "secret" not in str(caught.value)


def test_an_outage_is_a_warning(capfd: pytest.CaptureFixture[str]):
    with tolerant():
        raise TrackingError("MLflow at x: gone")
    assert "warning: MLflow at x: gone; `make publish`" in capfd.readouterr().err
