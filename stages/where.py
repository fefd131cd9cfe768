"""Where the work is done: on this machine, or on the Ray cluster that RAY_ADDRESS names.

Ray is imported where it is needed: who collects what is there does not wait for it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.local import s3
from pipeline import params
from pipeline.environment import CLUSTER
from pipeline.errors import BusyError, CheckpointError, ParamsError, TrainingError
from pipeline.files import exclusively, write_json
from pipeline.params import Study
from pipeline.storage.checkpoints import Before, CheckpointStore
from pipeline.storage.layout import SEARCHES, TRAININGS, TRIALS, Instance, Instances
from pipeline.storage.s3 import Storage
from pipeline.tracking.publish import commit
from pipeline.training import result
from pipeline.training.identity import CONTINUE, KEY_LENGTH, run_key
from pipeline.training.job import TrainJob
from pipeline.training.schedule import load_schedule
from stages import stage

if TYPE_CHECKING:
    from pipeline.cluster.jobs import Cluster, Work
    from pipeline.cluster.search import Search

ARRAYS = Path("data/arrays.safetensors")
MOST_LOCKS = 200
AGAIN = "STUDY_AGAIN"


def cluster() -> "Cluster | None":
    """Returns the cluster that RAY_ADDRESS names, or None."""
    if not os.environ.get(CLUSTER):
        return None
    from pipeline.cluster import jobs

    return jobs.Cluster(jobs.address() or "", stage.occasion())


@contextmanager
def alone(key: str, what: str) -> Iterator[None]:
    """Lets one process of this machine do `what`; on a cluster the job's name sees to it."""
    if os.environ.get(CLUSTER):
        yield
    else:
        with exclusively(s3.state_dir() / "locks" / key, what):
            yield


def note(key: str, why: str | None) -> None:
    """Notes that this `dvc repro` has tried a training here, and why it failed, if it did."""
    write_json(_note_of(key), {"by": stage.occasion(), "why": why})


def noted(key: str) -> dict[str, str | None] | None:
    """Returns the note of this very `dvc repro` about a training, or None."""
    try:
        found: dict[str, str | None] = json.loads(_note_of(key).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if found.get("by") == stage.occasion() else None


def refuse_a_second_try(key: str) -> None:
    """Raises TrainingError where `handover` has tried a training in this very `dvc repro`."""
    if (found := noted(key)) and found["why"]:
        raise TrainingError(f"{found['why']} (the next `dvc repro` tries again)")


def _note_of(key: str) -> Path:
    return s3.state_dir() / "tried" / f"{key}.json"


def make_ready(there: "Cluster", digest: str, storage: Storage) -> None:
    """Compares versions, and puts the data set where the cluster's nodes find it."""
    from pipeline.storage.datasets import DataSets

    there.require_versions()
    DataSets(storage).upload(digest, ARRAYS)


def training_of(study: Study, job: TrainJob, digest: str, storage: Storage) -> "Work":
    """Returns the training of a row as a job: all that a driver must know is in its document."""
    from pipeline.cluster.jobs import Work

    document = {
        "kind": "training",
        "name": job.name,
        "key": job.key,
        "instance": job.instance,
        "row": job.row.model_dump(mode="json"),
        "schedule": job.schedule.model_dump(mode="json"),
        "data": digest,
        "share": study.execution.share,
        "commit": commit(),
    }
    facts = {"kind": "training", "row": job.name, "study": study.study, "again": _again()}
    checkpoints = CheckpointStore.of(job, storage)
    return Work(job.key, job.name, facts, document, lambda: checkpoints.finished() is not None)


def search_named(study: Study, name: str, digest: str, storage: Storage) -> "Search":
    """Returns a search of the study, the instance of it that this command is about."""
    from pipeline.cluster.search import Search

    if name not in study.tune:
        raise ParamsError(
            f'params.yaml: tune has no search "{name}"; it has {", ".join(study.tune)}'
        )
    tune = study.tune[name]
    search = Search(tune, params.row_of(study, tune.model), ARRAYS, digest, storage)
    search.instance = instance_of(SEARCHES, search.key, storage)
    return search


def search_of(study: Study, name: str, search: "Search", digest: str) -> "Work":
    """Returns a search as a job."""
    from pipeline.cluster.jobs import Work

    document = {
        "kind": "search",
        "tune": search.tune.model_dump(mode="json"),
        "row": search.row.model_dump(mode="json"),
        "instance": search.instance,
        "data": digest,
        "at_once": study.execution.trials_at_once,
        "share": study.execution.share,
    }
    facts = {"kind": "search", "row": name, "study": study.study, "again": _again()}
    return Work(search.key, f"search {name}", facts, document, lambda: search.is_done)


def train_row(study: Study, job: TrainJob, digest: str, storage: Storage) -> None:
    """Brings a row's training to its end, following it."""
    there = cluster()
    if there is None:
        from pipeline.cluster.train import train  # Ray Train: not needed to collect

        train(job)
        return
    make_ready(there, digest, storage)
    there.require_room(f"models.{job.name}", job.row.worker_bounds[0], study.execution.share)
    there.finish(training_of(study, job, digest, storage))


def run_search(study: Study, name: str, search: "Search", digest: str, storage: Storage) -> None:
    """Brings a search to its end, following it."""
    there = cluster()
    if there is None:
        from pipeline.cluster.tune import search_here

        search_here(search, study.execution)
        return
    make_ready(there, digest, storage)
    there.require_room(f"tune.{name}", 1, study.execution.share)
    with search.followed():
        there.finish(search_of(study, name, search, digest))


def job_of(study: Study, name: str, digest: str, storage: Storage) -> tuple[TrainJob, bool]:
    """Returns the training of a row, and whether the user overrode its key."""
    row, schedule = params.row_of(study, name), load_schedule(Path(study.models[name].schedule))
    key, overridden = run_key(name, row, schedule, digest)
    instance = instance_of(TRAININGS, key, storage)
    return TrainJob(name, key, row, schedule, ARRAYS.resolve(), stage.begun(), instance), overridden


def instance_of(kind: str, key: str, storage: Storage) -> int:
    """Returns the instance of a training or a search that this command is about.

    It is the last that was begun; where the environment's STUDY_AGAIN asks for the study afresh, one of
    that request's own, begun by whoever asks first.
    """
    instances = Instances(storage, kind, key)
    if not (request := _again()):
        return instances.current()
    if there := cluster():
        require_none_alive(there, key)
    return instances.begin(request)


def _again() -> str:
    return os.environ.get(AGAIN, "")


def require_none_alive(there: "Cluster", key: str) -> None:
    """Raises BusyError where another `dvc repro`'s job is at a key: afresh would leave it behind."""
    last = there.latest(key)
    if last and last.is_alive and last.facts.get("again") != _again():
        raise BusyError(
            f"the job {last.name} is at it: `make stop RUN={last.name}` first, then begin afresh"
        )


def refuse_what_is_left_behind(job: TrainJob, digest: str, storage: Storage) -> None:
    """Raises CheckpointError where this very training was begun here by other code, and is not done.

    It must not be lost unasked: going on with it, or forgetting it, is for a person to say.
    """
    for key in _keys_tried_here():
        facts = None if key == job.key else CheckpointStore(storage, key).facts()
        if facts and facts["name"] == job.name and job.is_of(facts, digest):
            if result.is_finished(facts):
                continue
            raise CheckpointError(
                f"{job.name}: a training of this row, begun by other code, stands at update "
                f"{facts['update']:,} of {facts['total_updates']:,} (threads: {facts['threads']}, key "
                f"{key}): {CONTINUE}={job.name}={key} dvc repro goes on with it, and "
                f"`make forget RUN={key}` forgets it"
            )


def refuse_a_search_left_behind(search: "Search", storage: Storage) -> None:
    """Raises CheckpointError where this row's search was begun here by other code, and is not done.

    A search cannot go on with trials of other code.
    """
    for key in _keys_tried_here():
        if key == search.key:
            continue
        mine = search.document()
        left = any(
            not found["done"] and {name: found[name] for name in mine} == mine
            for found in searches_of(key, storage)
        )
        if left or _was_left_before(key, search, storage):
            raise CheckpointError(
                f"tune: a search for this row, begun by other code, is not done (key {key}), and "
                f"this code cannot go on with it: `make forget RUN={key}` forgets it"
            )


def _was_left_before(key: str, search: "Search", storage: Storage) -> bool:
    """Tells whether a search of before there were instances was begun for this row, and is not done."""
    for name in storage.keys(f"searches/{key}/"):
        content = storage.get(name)
        if content is None or json.loads(content)["status"] != "running":
            continue
        if (facts := Before(storage, Path(name).stem).facts()) and search.is_of(facts):
            return True
    return False


def searches_of(key: str, storage: Storage) -> list[dict[str, Any]]:
    """Returns what the instances of a search say of it."""
    from pipeline.cluster.search import ALL

    numbers = Instances(storage, SEARCHES, key).numbers()
    found = (Instance(storage, SEARCHES, key, number).manifest(ALL) for number in numbers)
    return [manifest[0] for manifest in found if manifest]


def forget(key: str) -> int:
    """Forgets a training or a search; returns how many objects were deleted."""
    storage = s3.connect()
    trials = [trial for search in searches_of(key, storage) for trial in search["trials"]]
    count = sum(
        Instances(storage, kind, some).forget()
        for kind, some in [(TRAININGS, key), (SEARCHES, key), *((TRIALS, key) for key in trials)]
    )
    # as they lay before there were instances
    old = storage.keys(f"searches/{key}/")
    some = [Path(name).stem for name in old]
    names = [name for one in (key, *some) for name in storage.keys(f"trainings/{one}/")] + old
    storage.delete(*sorted(names, key=lambda name: not name.endswith(".json")))
    (s3.state_dir() / "locks" / key).unlink(missing_ok=True)
    return count + len(names)


def _keys_tried_here() -> list[str]:
    """Returns the keys of the trainings and searches that were begun on this machine, newest first."""
    locks = [path for path in (s3.state_dir() / "locks").glob("*") if len(path.name) == KEY_LENGTH]
    return [
        path.name for path in sorted(locks, key=lambda path: -path.stat().st_mtime)[:MOST_LOCKS]
    ]


def stale(study: Study, digest: str, storage: Storage, rows: list[str]) -> list[TrainJob]:
    """Returns the trainings of those rows that have no result, here or on S3."""
    found = []
    for name in rows:
        job, overridden = job_of(study, name, digest, storage)
        if result.is_collected(Path("runs") / name, job):
            continue
        facts = CheckpointStore.of(job, storage).facts()
        if result.is_finished(facts) or (overridden and facts is None):
            continue  # `train` collects it, or says what is wrong
        found.append(job)
    return found


def hand_over(
    there: "Cluster", study: Study, digest: str, storage: Storage, rows: list[str]
) -> None:
    """Submits those of the rows that have neither a result nor a living job."""
    make_ready(there, digest, storage)
    known, submitted = there.jobs(), 0
    for job in stale(study, digest, storage, rows):
        there.require_room(f"models.{job.name}", job.row.worker_bounds[0], study.execution.share)
        was_alive = any(other.key == job.key and other.is_alive for other in known)
        found = there.ensure(training_of(study, job, digest, storage), known)
        submitted += not was_alive
        print(f"{job.name}: job {found.name}: {found.status}", flush=True)
    print(
        f"handed over {submitted} of {len(study.models)} trainings to {there.address}", flush=True
    )
