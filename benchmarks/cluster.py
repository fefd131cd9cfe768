"""Trainings on a cluster: side by side against one after another, and the cost of waiting ones.

    make cluster-up
    RAY_ADDRESS=http://127.0.0.1:8265 python -m benchmarks.cluster

The cluster has room for two workers. Three equal trainings run one after another, then six at once,
which are three pairs: the ratio says what is lost by submitting, waiting and sharing the machine. Then
twenty trainings are submitted, of which eighteen wait, and the memory that they take is measured.
"""

import json
import time
from pathlib import Path
from typing import Any

import psutil

from infra.local import s3
from pipeline import params, paths
from pipeline.cluster.client import Cluster, Job, Work
from pipeline.data import dataset
from pipeline.execution.there import There
from pipeline.execution.there import cluster as cluster_of_environment
from pipeline.params import validate
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.datasets import DataSets
from pipeline.storage.objects import Storage
from pipeline.training.schedule import Schedule
from pipeline.training.training import Training

ROW = "resnet-20"
UPDATES = 900
REPORT_EVERY = 100  # every few seconds; the study's own 10 are for its curves
WAITING = 20
POLL_S = 2.0  # polling uses the same cores
RESULT = Path("benchmarks/cluster.json")


def works(first_seed: int, count: int) -> list[Work]:
    """Returns trainings that differ only in their seeds."""
    study = params.load()
    document = {"shape": "cosine", "base_lr": 0.05, "total_updates": UPDATES, "warmup": None}
    schedule: Schedule = validate(Schedule, document, "benchmark")
    data = dataset.load(paths.ARRAYS)
    DataSets(s3.connect()).upload(data.digest, paths.ARRAYS)
    found = []
    for seed in range(first_seed, first_seed + count):
        row = params.row_of(study, ROW).model_copy(
            update={"seed": seed, "report_every_updates": REPORT_EVERY}
        )
        training = Training.of(f"{ROW}-{seed}", row, schedule, data.digest)
        found.append(There(study, s3.connect()).work_of(training))
    return found


def wait(cluster: Cluster, jobs: list[Job], *, alive: bool) -> None:
    """Waits until every job runs (`alive`), or has ended."""
    names = {job.name for job in jobs}
    while True:
        now = [job for job in cluster.jobs() if job.name in names]
        assert not any(job.status in ("FAILED", "STOPPED") for job in now), now
        if all(job.status == "RUNNING" if alive else not job.is_alive for job in now):
            return
        time.sleep(POLL_S)


def serial_and_side_by_side(cluster: Cluster) -> dict[str, float]:
    """Returns the seconds of three trainings in turn and of six at once."""
    seed = int(time.time())
    began = time.monotonic()
    for work in works(seed, 3):
        wait(cluster, [cluster.ensure(work)], alive=False)
    three = time.monotonic() - began
    began = time.monotonic()
    wait(cluster, [cluster.ensure(work) for work in works(seed + 3, 6)], alive=False)
    six = time.monotonic() - began
    return {"three_in_turn_s": three, "six_at_once_s": six, "ratio": six / three}


def waiting_ones(cluster: Cluster, storage: Storage) -> dict[str, float]:
    """Returns how much of the head's memory twenty trainings take, all but two of them waiting."""
    before = psutil.virtual_memory().available
    began = time.monotonic()
    submitted = works(int(time.time()) + 100, WAITING)
    jobs = [cluster.ensure(work) for work in submitted]
    wait(cluster, jobs, alive=True)
    running = time.monotonic() - began
    time.sleep(25)  # two train, two wait with everything loaded
    taken = before - psutil.virtual_memory().available
    cluster.stop(*jobs)
    for work in submitted:
        CheckpointStore(storage, work.key).clear()
    return {"jobs": WAITING, "all_running_after_s": running, "memory_gb": taken / 1e9}


def main() -> None:
    """Measures, prints and writes the results."""
    cluster, storage = cluster_of_environment(), s3.connect()
    assert cluster is not None, "RAY_ADDRESS is not set: `make cluster-up`"
    cluster.require_versions()
    found: dict[str, Any] = {"updates": UPDATES, "row": ROW}
    found |= serial_and_side_by_side(cluster)
    print(json.dumps(found, indent=1), flush=True)
    found["waiting"] = waiting_ones(cluster, storage)
    print(json.dumps(found["waiting"], indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
