"""Stage `train`: one network of the study -> final weights and history.

The run key decides: a finished training is collected, an unfinished one goes on from its last
checkpoint, and what was never begun begins: here, or as a job on the cluster that RAY_ADDRESS
names. `make again RUN=<row>` trains afresh.
"""

import time
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.data import prepared
from pipeline.errors import CheckpointError, ParamsError
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.training import result
from pipeline.training.identity import CONTINUE
from stages import stage, where


def main(name: str) -> None:
    """Trains the row `name`, or collects it."""
    study, data, storage = params.load(), prepared.look(where.ARRAYS), s3.connect()
    job, overridden = where.job_of(study, name, data.digest, storage)
    checkpoints = CheckpointStore.of(job, storage)
    with where.alone(job.key, f"the training of {name}"):
        if facts := checkpoints.facts():
            job.check(facts, data.digest)
        elif overridden:
            raise ParamsError(
                f"{CONTINUE}: {name}={job.key}: there is no training of this key on S3"
            )
        finished = checkpoints.finished()
        if trained := finished is None:
            where.refuse_a_second_try(job.key)
            if facts is None:
                where.refuse_what_is_left_behind(job, data.digest, storage)
            from stages import tracked  # MLflow: not needed to collect

            with tracked.followed(study) as follow, follow(job):
                where.train_row(study, job, data.digest, storage)
            finished = checkpoints.finished()
    if finished is None:
        raise CheckpointError(
            f"{name}: trained, but its last checkpoint is not whole on S3: `dvc repro` goes on from the "
            "one before"
        )
    if not trained:
        print(
            f"{name}: already trained (key {job.key}): collected; `make again RUN={name}` trains it "
            "afresh",
            flush=True,
        )
    tensors, facts = finished
    wall_seconds = facts["wall_seconds"] + (time.time() - facts["time"] if trained else 0)
    history = result.write_result(
        Path("runs") / name, job, data, tensors, facts,
        overridden=overridden, commit=facts.get("commit", "unknown"), wall_seconds=wall_seconds,
    )  # fmt: skip
    print(
        f"{name}: {history[-1].update:,} updates, {history[-1].val_error_pct:.1f} % wrong on val, "
        f"{history[-1].seconds:.0f} s of training, {wall_seconds:.0f} s in all"
    )


if __name__ == "__main__":
    stage.main(main)
