"""Stage `handover`: all stale trainings at once, before the first one is collected.

On a cluster they are submitted, and train side by side there while `dvc repro` collects them in turn;
without RAY_ADDRESS they train here, side by side, as far as this machine goes. A row that fails does
not stop the others: the stage `train` tells of it. The output is always the same, so that it
invalidates no one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.data import prepared
from pipeline.data.prepared import Prepared
from pipeline.files import write
from pipeline.params import Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.s3 import Storage
from pipeline.training.job import TrainJob
from stages import stage, where


def train_here(study: Study, data: Prepared, storage: Storage) -> None:
    """Trains every row that has no result, side by side."""
    if not (jobs := where.stale(study, data.digest, storage, list(study.models))):
        return
    from pipeline.cluster.here import train_side_by_side  # Ray: where there is something to do
    from stages import tracked

    with tracked.followed(study) as follow:

        @contextmanager
        def watch(job: TrainJob) -> Iterator[None]:
            with where.alone(job.key, f"the training of {job.name}"):
                if CheckpointStore.of(job, storage).facts() is None:
                    where.refuse_what_is_left_behind(job, data.digest, storage)
                with follow(job):
                    yield
            where.note(job.key, None)

        height, width = data.input_size(jobs[0].row.crop_px)
        failed = train_side_by_side(jobs, height * width, study.execution.worker_gpus, watch)
    for job in jobs:
        if error := failed.get(job.name):
            where.note(job.key, str(error))
            print(f"{job.name}: failed: {error}", flush=True)


def main() -> None:
    """Trains or submits every row that has neither a result nor a living job."""
    study, storage = params.load(), s3.connect()
    data = prepared.look(where.ARRAYS)
    if there := where.cluster():
        where.hand_over(there, study, data.digest, storage, list(study.models))
    else:
        train_here(study, data, storage)
    write(Path("state/handover"), "handed over\n")


if __name__ == "__main__":
    stage.main(main)
