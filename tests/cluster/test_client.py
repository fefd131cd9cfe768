"""What becomes of a job that ended when it is asked for again, and of a search that joined another's job."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import pipeline
from pipeline import errors
from pipeline.cluster import client
from pipeline.cluster.client import LOST_ATTEMPTS, Cluster, Job, Work
from pipeline.errors import StudyError, TrainingError
from pipeline.execution.bringing import searched
from pipeline.execution.place import Place
from pipeline.storage.layout import project
from pipeline.storage.objects import Storage
from pipeline.tuning.search import Search

WORK = Work("key", "net", {"kind": "training", "row": "net"}, {})


class Jobs(Cluster):
    """A cluster of which nothing but the jobs is known."""

    def __init__(self, *known: Job) -> None:
        self._by, self.known, self.address = "me", list(known), "here"

    def jobs(self) -> list[Job]:
        return self.known

    def logs(self, name: str) -> str:
        return ""

    def _attempt(self, work: Work, attempt: int) -> Job:
        return ended("PENDING", attempt)


def ended(status: str, attempt: int = 1, exit_status: int | None = None, by: str = "me") -> Job:
    return Job(
        f"key-{attempt}", "key", attempt, status, exit_status, "", {"by": by}, float(attempt)
    )


def test_a_job_that_was_lost_is_made_again_in_the_same_repro_a_few_times():
    assert Jobs(ended("FAILED")).ensure(WORK).attempt == 2
    many = [ended("FAILED", number + 1) for number in range(LOST_ATTEMPTS + 1)]
    with pytest.raises(TrainingError):
        Jobs(*many).ensure(WORK)
    others = [dataclasses.replace(job, facts={"by": "somebody"}) for job in many]
    assert Jobs(*others).ensure(WORK).attempt == len(many) + 1


@pytest.mark.parametrize("job", [ended("FAILED", exit_status=1), ended("STOPPED")])
def test_a_job_that_failed_or_was_stopped_is_not(job: Job):
    with pytest.raises(TrainingError):
        Jobs(job).ensure(WORK)
    assert Jobs(dataclasses.replace(job, facts={"by": "somebody"})).ensure(WORK).attempt == 2


def test_a_job_whose_result_is_damaged_is_made_again():
    whole: Callable[[], bool]
    for whole, attempt in ((lambda: True, 1), (lambda: False, 2)):
        work = dataclasses.replace(WORK, done=whole)
        assert Jobs(ended("SUCCEEDED", by="somebody")).ensure(work).attempt == attempt


def test_a_search_that_joined_one_of_fewer_trials_goes_on():
    left = ["as many trials as the job had", "the others"]

    class Searched(SimpleNamespace):
        key, has_begun = "key", True
        is_done = property(lambda self: not left)

    search: Any = Searched(check=lambda name: None)
    place: Any = SimpleNamespace(
        only_one=lambda key, what: nullcontext(), search=lambda name, search: left.pop(0)
    )
    assert not searched("net", cast(Search, search), cast(Place, place), cast(Storage, None))
    assert left == []


def test_every_error_of_storage_is_known_where_other_processes_raise_it_again():
    def below(kind: type[StudyError]) -> list[type[StudyError]]:
        return [one for sub in kind.__subclasses__() for one in (sub, *below(sub))]

    ours = [one for one in below(StudyError) if one.__module__.startswith("pipeline.storage")]
    assert [one for one in ours if not hasattr(errors, one.__name__)] == []
    assert hasattr(errors, "UnreachableError")


def test_a_job_of_another_project_is_not_ours():
    """A copy of the project has the same keys, and results of its own."""

    def details(name: str) -> SimpleNamespace:
        return SimpleNamespace(
            submission_id=name, metadata={"key": "key"}, status="RUNNING", driver_exit_code=None, message="",
            start_time=1000,
        )  # fmt: skip

    ours = client._job(details(f"{project()}-key-2"))
    assert ours is not None and (ours.key, ours.attempt) == ("key", 2)
    assert client._job(details("key-1")) is not None  # by an earlier version
    assert client._job(details("another-1234-key-1")) is None
    assert client._job(details("theirs")) is None


def test_what_editors_leave_beside_the_source_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A lock of Emacs' is a link to nothing, which a copy cannot follow."""
    package = tmp_path / "clone/pipeline"
    (package / ".ipynb_checkpoints").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / ".#loop.py").symlink_to("user@host.1234:5678")
    for name in (".ipynb_checkpoints/loop-checkpoint.py", "loop.py~", ".loop.py.swp"):
        (package / name).touch()
    monkeypatch.setattr(pipeline, "__file__", str(package / "__init__.py"))
    client._copy_code(tmp_path)
    assert [path.name for path in (tmp_path / "pipeline").iterdir()] == ["__init__.py"]
