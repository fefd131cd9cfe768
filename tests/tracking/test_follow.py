"""Following a training by its history."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.checkpoint import CheckpointFacts, Record
from pipeline.errors import ResourceError, StorageError
from pipeline.tracking import follow
from pipeline.tracking.follow import Follower
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


class Published(list[tuple[int, str]]):
    """How long each published history was, and the status with it."""

    def __call__(self, history: Sequence[Record], status: str, usage: Sequence[Any]) -> None:
        self.append((len(history), status))


def test_the_last_history_is_published_even_at_the_very_end():
    now: dict[str, Any] = {}
    published = Published()
    with Follower("net", 12, lambda: now.get("facts"), published):
        now["facts"] = facts(4)
        wait_for(lambda: (1, "RUNNING") in published)
        now["facts"] = facts(12)
    assert published[:2] == [(0, "RUNNING"), (1, "RUNNING")]
    assert published[-1] == (3, "FINISHED")


@pytest.mark.parametrize(
    "error, last",
    [(ValueError, (1, "FAILED")), (KeyboardInterrupt, (1, "RUNNING")), (ResourceError, (1, "RUNNING"))],
)  # fmt: skip
def test_how_a_training_ended_is_published(error: type[BaseException], last: tuple[int, str]):
    published = Published()
    follower = Follower("net", 12, lambda: facts(4), published, lost=ResourceError)
    with pytest.raises(error), follower:
        wait_for(lambda: (1, "RUNNING") in published)
        raise error("of this test")
    assert published[-1] == last


def test_a_training_that_ends_before_its_last_update_has_failed():
    published = Published()
    with Follower(
        "net", 12, lambda: facts(8), published
    ):  # a row of several: its error is told elsewhere
        pass
    assert published[-1] == (2, "FAILED")


def test_an_outage_of_s3_is_told_and_outlived(capfd: pytest.CaptureFixture[str]):
    answers = iter([StorageError("s3://x: cannot be reached")])
    published = Published()

    def look() -> CheckpointFacts:
        for error in answers:
            raise error
        return facts(8)

    with Follower("net", 12, look, published):
        wait_for(lambda: (2, "RUNNING") in published)
    assert "cannot be reached" in capfd.readouterr().err


def test_plain_lines_show_rate_and_time_left_where_there_is_no_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.progress.PLAIN_LINE_EVERY_S", 0.0)
    updates = iter([0, 4, 4, 8])
    published = Published()
    with Follower("net", 12, lambda: facts(next(updates, 8)), published):
        wait_for(lambda: (2, "RUNNING") in published)
    out = capfd.readouterr().out
    assert "net: 8/12 updates (67 %)" in out
    assert "updates/s" in out
    assert " s left" in out
