"""Jobs on a Ray cluster: the thin client that submits, finds, follows and stops them.

A job is named `<key>-<attempt>`. Ray accepts each name only once, ever, so the name acts as a lock
between two people who submit the same training. The code travels with the job; data, caches and
secrets do not: data come from S3, and the S3 keys are in the nodes' own environment.

One file, although long: submitting, joining and following a job decide by the same states of it.
"""

import atexit
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException, ServerUnavailable

import pipeline
from pipeline.cluster import probe
from pipeline.cluster.private import REQUEST_TIMEOUT_S, Client
from pipeline.environment import CLUSTER
from pipeline.errors import BusyError, ResourceError, TrainingError, without_password
from pipeline.files import scratch
from pipeline.storage.layout import project

SPEC = "STUDY_JOB"
PROBE_TIMEOUT_S = 120.0
POLL_S = 1.0
UNREACHABLE_FOR_S = 300.0
STOPPED_WITHIN_S = 120.0
MOST_NODES = 10_000  # Ray's own default is 100
LARGEST_CODE_BYTES = 10_000_000
LOST_ATTEMPTS = 3
EPSILON = 1e-9  # so that 0.2 fits into 1 five times
# lines that Ray and torch add to a job's log, stack traces of their processes included
RAYS_OWN = re.compile(
    r"\(raylet|core_worker\.cc|job_manager\.py|^Running entrypoint|\[c10d\]|^(/|\*\*\*|$)"
)
SAID_WHY = 3  # the exit status of a driver that has printed an error of ours
KILLED = 128  # from this status on, a shell means that a signal ended the command

# A driver that was killed is restarted in place; one that exited by itself is not.
ENTRYPOINT = (
    "for start in 1 2 3; do python -m pipeline.cluster.driver; status=$?; "
    f'[ "$status" -lt {KILLED} ] && exit "$status"; '
    'echo "the driver was killed (status $status): starting it again"; done; exit "$status"'
)
PROBE = "python -m pipeline.cluster.probe"


def address() -> str | None:
    """Returns the address of the cluster's Jobs API, or None if the study runs on this machine.

    Raises ResourceError if RAY_ADDRESS is not such an address.
    """
    found = os.environ.get(CLUSTER)
    if found and not found.startswith(("http://", "https://")):
        raise ResourceError(
            f"{CLUSTER} is {found}, wanted the address of the cluster's Jobs API, such as "
            "http://127.0.0.1:8265 (its dashboard's): set it to that, or unset it to train here"
        )
    return found or None


@dataclass(frozen=True)
class Job:
    """One attempt at a piece of work, as the cluster knows it."""

    name: str
    key: str
    attempt: int
    status: str
    exit_status: int | None
    message: str
    facts: dict[str, str]
    started: float

    @property
    def is_alive(self) -> bool:
        """Tells whether the job is waiting or running."""
        return self.status in (JobStatus.PENDING, JobStatus.RUNNING)

    @property
    def is_lost(self) -> bool:
        """Tells whether the job failed without giving a reason: it was killed, or its node is gone."""
        return self.status == JobStatus.FAILED and self.exit_status not in (1, SAID_WHY)


@dataclass(frozen=True)
class Work:
    """What a job does: its key, the row or search that it belongs to, and the driver's document.

    `done` tells whether its result is on S3: a job may end between the look at S3 and that at the jobs.
    """

    key: str
    title: str
    facts: dict[str, str]
    spec: dict[str, Any]
    done: Callable[[], bool] = lambda: False


class Cluster:
    """The jobs of one cluster; `by` says on whose behalf they are submitted (one `dvc repro`)."""

    def __init__(self, address: str, by: str) -> None:
        self._full_address, self._by = address, by
        self.address = without_password(address)
        with self._named():
            self._client = Client(address)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turns what Ray's client raises into a ResourceError that names a next step."""
        try:
            yield
        except AuthenticationError as error:
            raise ResourceError(
                f"the Ray cluster at {self.address} refuses the token, or there is none here "
                f"({str(error).splitlines()[0].partition('. ')[0]}): set RAY_AUTH_TOKEN to the cluster's token "
                "or RAY_AUTH_TOKEN_PATH to a file with it, or put it into ~/.ray/auth_token; after `make "
                f"cluster-down`, `make cluster-up` or `unset {CLUSTER}`"
            ) from error
        except (ConnectionError, requests.RequestException) as error:
            raise Unreachable(
                f"the Ray cluster at {self.address} cannot be reached ({type(error).__name__}): is "
                f"it up (`make cluster-up` starts a local one)? If so, check {CLUSTER} and the "
                "network, or unset the variable to train on this machine"
            ) from error
        except ServerUnavailable as error:
            raise Unreachable(f"the Ray cluster at {self.address}: {error}") from error
        except (RuntimeError, RayStateApiException) as error:
            raise ResourceError(f"the Ray cluster at {self.address}: {error}") from error

    # --- looking --------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """Returns all our jobs on the cluster, sorted by key and attempt."""
        with self._named():
            found = [_job(details) for details in self._client.list_jobs()]
        return sorted((job for job in found if job is not None), key=lambda j: (j.key, j.attempt))

    def latest(self, key: str) -> Job | None:
        """Returns the last attempt at a key, or None."""
        return next((job for job in reversed(self.jobs()) if job.key == key), None)

    def require_idle(self, key: str, request: str | None = None) -> None:
        """Raises BusyError if a job works on a key, unless this request for a fresh start began it."""
        last = self.latest(key)
        if last and last.is_alive and last.facts.get("again") != request:
            raise BusyError(
                f"the job {last.name} is at work on it: `make stop RUN={last.name}`, then start afresh"
            )

    def _look(self, name: str) -> Job:
        with self._named():
            job = _job(self._client.get_job_info(name))
        assert job is not None
        return job

    def logs(self, name: str) -> str:
        """Returns what a job has printed."""
        with self._named():
            text: str = self._client.get_job_logs(name)
        return text

    def shapes(self) -> list[dict[str, float]]:
        """Returns the resources of every living node: CPU, GPU, memory (bytes) and others."""
        with self._named():
            nodes = list_nodes(
                self._full_address,
                limit=MOST_NODES,
                detail=True,
                timeout=int(REQUEST_TIMEOUT_S),
            )
        # filtered here: Ray would report the nodes that its own filter leaves out as truncated
        return [dict(node.resources_total) for node in nodes if node.state == "ALIVE"]

    # --- checking -------------------------------------------------------------------------------

    def require_room(self, where: str, workers: int, share: dict[str, float]) -> None:
        """Raises ResourceError if no node, present or still to be added, can ever hold one worker.

        Ray itself would wait forever. If there is room for too few workers now, a line says so.
        """
        shapes, ever = self.shapes(), self._probed.get("shapes", [])
        if not places([*shapes, *ever], share):
            largest = "; ".join(sorted({_text(shape) for shape in (*shapes, *ever)}))
            raise ResourceError(
                f"{where}: a worker takes {_text(share)} (execution in params.yaml), but no node of "
                f"{self.address} has that much (found {largest}): lower execution.worker_cpus or "
                "worker_gpus, or add larger nodes"
            )
        room = places(shapes, share)
        if room < workers:
            print(
                f"{where}: wants {workers} workers of {_text(share)}, but the cluster has room for "
                f"{room} in all: waiting for more nodes",
                flush=True,
            )

    def require_versions(self) -> None:
        """Raises ResourceError if the cluster's Python, Ray or torch is not this machine's version."""
        ours = {"python": platform.python_version()}
        ours |= {name: importlib.metadata.version(name) for name in probe.PACKAGES}
        theirs = {name: self._probed[name] for name in ours}
        release = {name: ".".join(version.split(".")[:2]) for name, version in ours.items()}
        differ = [
            f"{name} {theirs[name]} there and {ours[name]} here"
            for name in ours
            if (name == "ray" and theirs[name] != ours[name])
            or ".".join(theirs[name].split(".")[:2]) != release[name]
        ]
        if differ:
            raise ResourceError(
                f"the Ray cluster at {self.address} has different versions: {', '.join(differ)}: build "
                "its image from requirements.lock (infra/docker/Dockerfile), or install the same here"
            )

    @cached_property
    def _probed(self) -> dict[str, Any]:
        """What a small job reports about the cluster's nodes, once for each start of the cluster."""
        with self._named():
            session = self._client.session_name()
        last = self.latest(f"probe-{session}")
        if last is None or not (last.is_alive or last.status == JobStatus.SUCCEEDED):
            name = f"probe-{session}-{1 + (last.attempt if last else 0)}"
            with suppress(BusyError):  # somebody else is asking at the same time
                self._submit(name, PROBE, {"key": f"probe-{session}"}, {})
        else:
            name = last.name
        deadline = time.monotonic() + PROBE_TIMEOUT_S
        while (job := self._look(name)).is_alive:
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"the Ray cluster at {self.address} did not finish a small job within "
                    f"{PROBE_TIMEOUT_S:.0f} s: look at its dashboard"
                )
            time.sleep(0.2)
        text = self.logs(name)
        if job.status != JobStatus.SUCCEEDED:
            raise ResourceError(
                f"the Ray cluster at {self.address} cannot run a small job that asks for its "
                f"versions of Python, Ray and torch: {_end_of(text) or job.message}"
            )
        facts: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        return facts

    # --- doing ----------------------------------------------------------------------------------

    def ensure(self, work: Work, known: list[Job] | None = None) -> Job:
        """Returns this work's live job, or its last if the result is on S3; else submits another.

        Raises TrainingError if this same `dvc repro` has already submitted it and it failed or was stopped: the
        next one tries again. One that was lost, as with its node, is made again, a few times.
        """
        jobs = self.jobs() if known is None else known
        last = next((job for job in reversed(jobs) if job.key == work.key), None)
        if last is not None and last.is_alive:
            return last
        ended_badly = last is not None and last.status in (JobStatus.FAILED, JobStatus.STOPPED)
        if last is not None and ended_badly and last.facts.get("by") == self._by:
            mine = [job for job in jobs if job.key == work.key and job.facts.get("by") == self._by]
            if not last.is_lost or len(mine) > LOST_ATTEMPTS:
                raise TrainingError(self._why(work, last))
        if last is not None and last.status == JobStatus.SUCCEEDED and work.done():
            return last
        return self._attempt(work, 1 + (last.attempt if last else 0))

    def _attempt(self, work: Work, attempt: int) -> Job:
        name = f"{project()}-{work.key}-{attempt}"  # a copy of the project has results of its own
        try:
            self._submit(
                name,
                ENTRYPOINT,
                {**work.facts, "title": work.title, "key": work.key, "by": self._by},
                {SPEC: json.dumps(work.spec)},
            )
        except BusyError:
            print(f"{work.title}: somebody else just submitted {name}: attached to it", flush=True)
        return self._look(name)

    def _submit(
        self, name: str, entrypoint: str, facts: dict[str, str], environment: dict[str, str]
    ) -> None:
        logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
        try:
            with self._named():
                self._client.submit_job(
                    submission_id=name,
                    entrypoint=entrypoint,
                    metadata=facts,
                    runtime_env={"working_dir": str(self._code), "env_vars": environment},
                    entrypoint_num_cpus=0,
                )
        except ResourceError as error:
            if "already exists" in str(error):
                raise BusyError(f"the job {name} already exists") from error
            raise

    @cached_property
    def _code(self) -> Path:
        """A folder with the library and nothing else, which travels with every job."""
        opened = ExitStack()
        atexit.register(opened.close)
        folder = opened.enter_context(scratch("code"))
        _copy_code(folder)
        return folder

    def finish(self, work: Work) -> None:
        """Runs the work on the cluster until it is finished, printing what its job prints.

        Raises TrainingError if it failed or was stopped, ResourceError if the cluster cannot be
        reached for five minutes (the job goes on), and at Ctrl-C a KeyboardInterrupt whose text says
        what to do next.
        """
        job = self.ensure(work)
        for lost in range(LOST_ATTEMPTS + 1):
            if lost:
                print(f"{self._why(work, job)}: making it now", flush=True)
                job = self._attempt(work, job.attempt + 1)
            try:
                print(f"{work.title}: job {job.name} at {self.address}: {job.status}", flush=True)
                job = self._follow(work, job)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"detached: {work.title} goes on as job {job.name}: `dvc repro` attaches again, "
                    f"`make stop RUN={job.name}` stops it"
                ) from None
            if not job.is_lost:
                break
        if job.status != JobStatus.SUCCEEDED:
            raise TrainingError(self._why(work, job))

    def _follow(self, work: Work, job: Job) -> Job:
        shown, silent_since = 0, None
        while True:
            try:
                job, text = self._look(job.name), self.logs(job.name)
            except ResourceError as error:
                if "does not exist" in str(error):  # the cluster was restarted
                    return replace(job, status=JobStatus.FAILED, exit_status=None, message="gone")
                now = time.monotonic()
                if silent_since is None:
                    silent_since = now
                    print(f"{work.title}: {error}; still trying", file=sys.stderr, flush=True)
                if now - silent_since > UNREACHABLE_FOR_S:
                    raise ResourceError(
                        f"{error}; the job {job.name} may still be running: `dvc repro` attaches again"
                    ) from error
            else:
                silent_since = None
                whole = text[: text.rfind("\n") + 1] if job.is_alive else text
                for line in whole[shown:].splitlines():
                    if not RAYS_OWN.search(line):
                        print(f"  {line}", flush=True)
                shown = max(shown, len(whole))
                if not job.is_alive:
                    return job
            time.sleep(POLL_S)

    def stop(self, *jobs: Job) -> None:
        """Stops jobs; raises ResourceError if one has not ended within two minutes."""
        with self._named():
            for job in jobs:
                self._client.stop_job(job.name)
        deadline = time.monotonic() + STOPPED_WITHIN_S
        for job in jobs:
            while self._look(job.name).is_alive:
                if time.monotonic() > deadline:
                    raise ResourceError(
                        f"{job.name} did not end within {STOPPED_WITHIN_S:.0f} s: try again"
                    )
                time.sleep(POLL_S)

    def _why(self, work: Work, job: Job) -> str:
        if job.status == JobStatus.STOPPED:
            return (
                f"{work.title}: the job {job.name} was stopped: `dvc repro` makes the next attempt"
            )
        try:
            said = _end_of(self.logs(job.name)) or job.message
        except ResourceError:
            said = job.message or "the reason is unknown"
        return (
            f"{work.title}: the job {job.name} failed: {said} (whole log: `ray job logs {job.name} "
            f"--address {self.address}`); `dvc repro` makes the next attempt"
        )


class Unreachable(ResourceError):
    """The cluster does not answer."""


def _job(details: JobDetails) -> Job | None:
    """Returns a job if it is ours, else None."""
    name, _, attempt = (details.submission_id or "").rpartition("-")
    facts = details.metadata or {}
    key = facts.get("key", "")
    if not attempt.isdecimal() or name not in (key, f"{project()}-{key}"):
        return None
    return Job(
        name=details.submission_id,
        key=key,
        attempt=int(attempt),
        status=details.status,
        exit_status=details.driver_exit_code,
        message=details.message or "",
        facts=facts,
        started=(details.start_time or 0) / 1000,
    )


# what Python and editors leave: Emacs' locks are links to nothing
LEFT_OUT = ("__pycache__", "*.pyc", ".ipynb_checkpoints", ".#*", "#*#", "*~", ".*.sw?")


def _copy_code(folder: Path) -> None:
    """Copies the library; raises ResourceError if it is too large to send with a job."""
    source = Path(pipeline.__file__).parent
    shutil.copytree(source, folder / "pipeline", ignore=shutil.ignore_patterns(*LEFT_OUT))
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if (total := sum(sizes.values())) > LARGEST_CODE_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise ResourceError(
            f"pipeline/ has {total / 1e6:.0f} MB and is sent with every job; at most "
            f"{LARGEST_CODE_BYTES / 1e6:.0f} MB are allowed: move {largest.relative_to(folder)} "
            f"({sizes[largest] / 1e6:.0f} MB) out of it; data belong on S3"
        )


def places(shapes: Sequence[dict[str, float]], share: dict[str, float]) -> int:
    """Returns how many workers, each taking the share, fit on nodes of these shapes at once."""
    wanted = {name: amount for name, amount in share.items() if amount > 0}
    return sum(
        int(min(shape.get(name, 0.0) / amount + EPSILON for name, amount in wanted.items()))
        for shape in shapes
    )


def _text(resources: dict[str, float]) -> str:
    named = {name: resources.get(name, 0) for name in ("CPU", "GPU")}
    return " and ".join(f"{amount:g} {name}" for name, amount in named.items())


def _end_of(log: str) -> str:
    """Returns the error in a log: its last line that begins with `error: `, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines or [""])[-1].removeprefix("error: ")
