"""`make jobs`, `make stop RUN=...`: this study's jobs on the cluster that RAY_ADDRESS names."""

import json
import time
from pathlib import Path

from infra.local import s3
from pipeline import command, params, paths
from pipeline.cluster.client import Cluster, Job
from pipeline.errors import ParamsError, ResourceError
from pipeline.execution.there import cluster
from pipeline.params import Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.tracking import results
from pipeline.tracking.sending import Sender
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training

STALE = "stale"


def main(what: str = "list", run: str = "") -> None:
    """Lists the jobs, or stops a row's jobs, one job by its name, or all stale ones."""
    there = cluster()
    if there is None:
        raise ResourceError("RAY_ADDRESS is not set: there is no cluster whose jobs could be shown")
    study = params.load()
    found = [job for job in there.jobs() if job.facts.get("study") == study.study]
    if what == "stop":
        _stop(there, study, found, run)
    else:
        _show(there, study, found)


def _stale(study: Study, found: list[Job]) -> set[str]:
    """Returns the names of this study's live training jobs whose key no row has anymore, and nobody chose.

    The key of a row whose schedule is still being searched for is unknown, so its jobs are not stale.
    """
    if not paths.DIGEST.exists():  # `prepare` is not done yet
        return set()
    digest = json.loads(paths.DIGEST.read_text())["digest"]
    current, unknown = set(), set()
    for name in study.models:
        row, path = params.row_of(study, name), Path(study.models[name].schedule)
        if path.exists():
            current.add(Training.of(name, row, load_schedule(path), digest).key)
        else:
            unknown.add(name)
    return {
        job.name
        for job in found
        if job.is_alive and job.facts["kind"] == "training" and "continued" not in job.facts
        and job.key not in current and job.facts["row"] not in unknown
    }  # fmt: skip


def _called(job: Job) -> str:
    """Returns what a user calls a job: its row, or the search."""
    return "search" if job.facts["kind"] == "search" else job.facts["row"]


def _show(there: Cluster, study: Study, found: list[Job]) -> None:
    stale, storage = _stale(study, found), s3.connect()
    print(f"{len(found)} jobs at {there.address}")
    for job in sorted(found, key=lambda job: job.started):
        facts = CheckpointStore(storage, job.key).facts()
        done = f"{facts.update:,}/{facts.total_updates:,} updates" if facts else ""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started))
        note = f"  {STALE}: no row has this key" if job.name in stale else ""
        print(f"{job.name:30} {_called(job):24} {job.status:10} {since}  {done}{note}")
    if stale:
        which = "it" if len(stale) == 1 else "them"
        print(f"{len(stale)} stale: `make stop RUN={STALE}` stops {which}")


def _stop(there: Cluster, study: Study, found: list[Job], run: str) -> None:
    if not run:
        raise ParamsError(f"RUN is empty, wanted a row, a job's name or {STALE}: see `make jobs`")
    alive = [job for job in found if job.is_alive]
    stale = _stale(study, found)
    if run == STALE:
        chosen = [job for job in alive if job.name in stale]
    else:
        chosen = [job for job in alive if run == job.name] or [
            job for job in alive if job.name not in stale and run == _called(job)
        ]
    if not chosen:
        known = ", ".join(f"{job.name} ({job.facts['row']})" for job in alive) or "none"
        raise ParamsError(f"RUN={run}: no running job has that name; running: {known}")
    there.stop(*chosen)
    _record(study, chosen)
    for job in chosen:
        print(f"stopped {job.name} ({job.facts['row']}); what it has committed stays on S3")


def _record(study: Study, stopped: list[Job]) -> None:
    """Has it said in MLflow that trainings were stopped; waits for no server."""
    trainings = [job for job in stopped if job.facts["kind"] == "training"]
    if trainings and paths.DIGEST.exists():
        storage = s3.connect()
        with Sender(results.address_of(study), here=False, begin_s=0) as sender:
            for job in trainings:
                store = CheckpointStore(storage, job.key)
                said = {"name": job.facts["row"], "key": job.key, "instance": store.instance.number}
                sender.tell({**said, "tags": {}, "params": {}}, (), "KILLED")


if __name__ == "__main__":
    command.main(main)
