"""Stage `train`: one network of the study -> final weights and history.

The run key decides: a finished training is collected, an unfinished one goes on from its last
checkpoint, and what was never begun begins: here, or as a job on the cluster that RAY_ADDRESS
names. `dvc repro -f` trains afresh.
"""

import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from infra.local import s3
from pipeline import params
from pipeline.cluster.follow import Follower
from pipeline.data import arrays
from pipeline.errors import ParamsError
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.tracking.publish import Child, tolerant
from pipeline.training import result
from pipeline.training.identity import CONTINUE, run_key
from pipeline.training.run import TrainJob
from pipeline.training.schedule import load_schedule
from stages import stage, tracked, where
from stages.where import ARRAYS


def main(name: str) -> None:
    """Trains the row `name`, or collects it."""
    study = params.load()
    row, schedule = params.row_of(study, name), load_schedule(Path(study.models[name].schedule))
    data = arrays.load(ARRAYS)
    key, overridden = run_key(name, row, schedule, data.digest)
    job = TrainJob(name, key, row, schedule, ARRAYS.resolve(), psutil.Process().create_time())
    storage = s3.connect()
    checkpoints = CheckpointStore(storage, key)

    @cache  # until it succeeds once: MLflow may come up later
    def run_in_mlflow() -> Child:
        return tracked.row_run(tracked.tracker_of(study), name, row, schedule, key, overridden)

    def publish_history(history: list[dict[str, Any]]) -> None:
        with tolerant():
            run_in_mlflow().history(history)

    def known() -> dict[str, Any] | None:
        facts = checkpoints.facts()
        if facts is not None:
            job.check(facts, data.digest)
        elif overridden:
            raise ParamsError(f"{CONTINUE}: {name}={key}: there is no training of this key on S3")
        return facts

    with where.alone(key, f"the training of {name}"):
        if stage.is_forced() and where.may_begin_afresh(key, name):
            checkpoints.clear()
        if trained := not result.is_finished(known()):
            with Follower(name, schedule.total_updates, checkpoints.facts, publish_history):
                where.train_row(study, job, data, storage)
    if not trained:
        print(f"{name}: already trained (key {key}): collected", flush=True)
    finished = checkpoints.latest()
    assert finished is not None
    tensors, facts = finished
    wall_seconds = facts["wall_seconds"] + (time.time() - facts["time"] if trained else 0)
    history = result.write_result(
        Path("runs") / name, job, data, tensors, facts,
        overridden=overridden, commit=facts.get("commit", "unknown"), wall_seconds=wall_seconds,
    )  # fmt: skip
    with tolerant():
        tracked.row_result(tracked.tracker_of(study), name, row)
    print(
        f"{name}: {history[-1].update:,} updates, {history[-1].val_error_pct:.1f} % wrong on val, "
        f"{history[-1].seconds:.0f} s of training, {wall_seconds:.0f} s in all"
    )


if __name__ == "__main__":
    stage.main(main)
