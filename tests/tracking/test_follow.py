"""Following a training by its history."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.checkpoint import CheckpointFacts, Record
from pipeline.errors import StorageError
from pipeline.tracking import follow
from pipeline.tracking.follow import Follower, Publisher
from tests import pace
from tests.checkpoints import facts


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + pace.hangs_after_s(60)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follow, "POLL_S", 0.05)


def test_the_last_history_is_published_even_at_the_very_end():
    now: dict[str, Any] = {}
    published: list[int] = []
    with Follower("net", 12, lambda: now.get("facts"), lambda h: published.append(len(h))):
        now["facts"] = facts(4)
        wait_for(lambda: published == [1])
        now["facts"] = facts(12)
    assert published == [1, 3]


def test_an_outage_of_s3_is_told_and_outlived(capfd: pytest.CaptureFixture[str]):
    answers = iter([StorageError("s3://x: cannot be reached")])
    published: list[int] = []

    def look() -> CheckpointFacts:
        for error in answers:
            raise error
        return facts(8)

    with Follower("net", 12, look, lambda h: published.append(len(h))):
        wait_for(lambda: published == [2])
    assert published == [2]
    assert "cannot be reached" in capfd.readouterr().err


def test_plain_lines_show_rate_and_time_left_where_there_is_no_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.progress.PLAIN_LINE_EVERY_S", 0.0)
    updates = iter([0, 4, 4, 8])
    published: list[int] = []
    with Follower("net", 12, lambda: facts(next(updates, 8)), lambda h: published.append(len(h))):
        wait_for(lambda: 2 in published)
    out = capfd.readouterr().out
    assert "net: 8/12 updates (67 %)" in out
    assert "updates/s" in out
    assert " s left" in out


def test_who_follows_does_not_wait_for_who_publishes():
    begun, may_end, seen = threading.Event(), threading.Event(), list[int]()

    def publish(name: str, history: Sequence[Record]) -> None:
        begun.set()
        may_end.wait()  # MLflow hangs
        seen.append(len(history))

    with Publisher(publish) as publisher:
        for update in (4, 8, 12):
            publisher.offer("net", facts(update).history)
            begun.wait()
        may_end.set()
    assert seen == [1, 3]  # the last that was offered, and none in between twice
