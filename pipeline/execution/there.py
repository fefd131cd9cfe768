"""Work on a Ray cluster: jobs named by the keys of what they compute, submitted and followed."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.command import occasion
from pipeline.errors import CheckpointError
from pipeline.evaluations import EvaluationStore
from pipeline.execution.begun import refuse_training_left_behind, remember, request
from pipeline.git import commit
from pipeline.params import Sharded, Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.datasets import DataSets
from pipeline.storage.objects import Storage
from pipeline.tracking import results
from pipeline.training.training import Training
from pipeline.tuning.search import Search

if TYPE_CHECKING:
    from pipeline.cluster.client import Cluster, Job, Work

POLL_S = 1.0


def cluster() -> "Cluster | None":
    """Returns the cluster that RAY_ADDRESS names, or None."""
    from pipeline.cluster import client

    address = client.address()
    return client.Cluster(address, occasion()) if address else None


@dataclass(frozen=True)
class There:
    """A cluster, as a `Place`; it is contacted, and Ray imported, only if there is something to do."""

    study: Study
    storage: Storage

    @cached_property
    def cluster(self) -> "Cluster":
        """The cluster that RAY_ADDRESS names; raises ResourceError if it cannot be used."""
        found = cluster()
        assert found is not None  # `named_cluster` has made sure of it
        return found

    @contextmanager
    def only_one(self, key: str, what: str) -> Iterator[None]:
        """Does nothing: a cluster accepts a job's name only once."""
        yield

    def require_idle(self, key: str, request: str | None = None) -> None:
        """Raises BusyError if another request's job works on a key: a fresh start would abandon it."""
        self.cluster.require_idle(key, request)

    def train(self, training: Training) -> None:
        """Submits a training, or joins its job, and follows it."""
        self.make_ready(training.data)
        self._require_room(f"models.{training.name}", training.row.worker_bounds[0])
        remember(training.key)
        with results.followed(self.study, self.storage, here=False) as follow, follow(training):
            self.cluster.finish(self.work_of(training))

    def train_all(self, trainings: Sequence[Training]) -> None:
        """Submits those that have no live job, and returns."""
        if not trainings:
            print("nothing to hand over: every training has its result", flush=True)
            return
        known, submitted = self.cluster.jobs(), 0
        self.make_ready(trainings[0].data)
        for training in trainings:
            self._require_room(f"models.{training.name}", training.row.worker_bounds[0])
            was_alive = any(job.key == training.key and job.is_alive for job in known)
            try:
                refuse_training_left_behind(training, self.storage)
            except CheckpointError as error:
                print(f"{training.name}: not submitted: {error}", flush=True)
                continue
            remember(training.key)
            found = self.cluster.ensure(self.work_of(training), known)
            submitted += not was_alive
            print(f"{training.name}: job {found.name}: {found.status}", flush=True)
        print(
            f"handed over {submitted} of {len(self.study.models)} trainings to "
            f"{self.cluster.address}",
            flush=True,
        )

    def search(self, name: str, search: Search) -> None:
        """Submits a search, or joins its job, and follows it."""
        with search.followed():
            self.cluster.finish(self._ready_search(name, search))

    def submit_search(self, name: str, search: Search) -> "Job":
        """Submits a search, or finds its job, and returns that."""
        return self.cluster.ensure(self._ready_search(name, search))

    def wait_for(self, key: str) -> None:
        """Waits until no job works on a key; raises ResourceError if the cluster cannot be asked."""
        told = False
        while (job := self.cluster.latest(key)) and job.is_alive:
            if not told:
                print(f"waiting for the job {job.name}, which evaluates its network", flush=True)
                told = True
            time.sleep(POLL_S)

    def evaluate(
        self, name: str, store: EvaluationStore, what: dict[str, Any], done: Callable[[], bool]
    ) -> None:
        """Evaluates a row whose network is in `store`, following the job; `done` tells whether S3 has it whole."""
        self._require_room(f"models.{name}")
        title, key = f"evaluate {name}", store.key
        document = {**what, "name": title, "key": key, "share": self.study.execution.share}
        self.cluster.finish(self._work("evaluation", name, key, title, document, done))

    def pack(self, data: Sharded, key: str, pieces: str) -> None:
        """Packs an s3:// prefix, whose pieces have the digest `pieces`, following the job."""
        self.cluster.require_versions()
        document = {"key": key, "data": data.model_dump(mode="json"), "pieces": pieces}
        self.cluster.finish(self._work("packing", "prepare", key, "prepare", document))

    def make_ready(self, data: str) -> None:
        """Compares versions, and uploads the data set to where the cluster's nodes find it."""
        self.cluster.require_versions()
        DataSets(self.storage).upload(data, paths.ARRAYS)

    def work_of(self, training: Training) -> "Work":
        """Returns a training as a job."""
        document = {
            "name": training.name,
            "key": training.key,
            "instance": training.instance,
            "overridden": training.overridden,
            "row": training.row.model_dump(mode="json"),
            "schedule": training.schedule.model_dump(mode="json"),
            "data": training.data,
            "share": self.study.execution.share,
            "commit": commit(),
        }
        checkpoints = CheckpointStore.of(training, self.storage)
        name, done = training.name, lambda: checkpoints.finished() is not None
        return self._work("training", name, training.key, name, document, done)

    def _ready_search(self, name: str, search: Search) -> "Work":
        self.make_ready(search.data)
        self._require_room(f"tune.{name}")
        document = {
            "tune": search.tune.model_dump(mode="json"),
            "row": search.row.model_dump(mode="json"),
            "instance": search.instance,
            "data": search.data,
            "at_once": self.study.execution.trials_at_once,
            "share": self.study.execution.share,
        }
        title, done = f"search {name}", lambda: search.is_done
        return self._work("search", name, search.key, title, document, done)

    def _require_room(self, where: str, workers: int = 1) -> None:
        self.cluster.require_room(where, workers, self.study.execution.share)

    def _work(
        self, kind: str, name: str, key: str, title: str, document: dict[str, Any],
        done: Callable[[], bool] = lambda: False,
    ) -> "Work":  # fmt: skip
        """Returns a job: the facts that are shown about it, and all that its driver needs to know."""
        from pipeline.cluster.client import Work

        facts = {"kind": kind, "row": name, "study": self.study.study, "again": request()}
        if document.get("overridden"):
            facts["continued"] = "yes"  # by STUDY_CONTINUE, of which other shells do not know
        return Work(key, title, facts, {"kind": kind, **document}, done)
