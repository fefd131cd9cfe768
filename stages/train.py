"""Stage `train`: one network of the study -> final weights and history.

The run key decides: a finished training is collected, an unfinished one goes on from its last
checkpoint, and one that was never begun is started, here or as a job on the cluster that
RAY_ADDRESS names. `make again RUN=<row>` trains afresh.
"""

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.execution.bringing import brought
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.training import result


def main(name: str) -> None:
    """Trains the row `name`, or collects it."""
    study, data = params.load(), prepared.look(paths.ARRAYS)
    with s3.kept() as storage:
        place = place_of(study, storage)
        training = Wanted(study, data.digest, storage, place).training(name)
        checkpoint, collected = brought(training, place, storage)
    if collected:
        print(
            f"{name}: already trained (key {training.key}): collected; `make again RUN={name}` trains "
            "it afresh",
            flush=True,
        )
    history = result.write_result(paths.run(name), training, data, checkpoint)
    CheckpointStore.of(training, storage).instance.note_collected()
    print(
        f"{name}: {history[-1].update:,} updates, {history[-1].val_error_pct:.1f} % error on val, "
        f"{history[-1].seconds:.0f} s of training, {checkpoint.facts.wall_seconds:.0f} s in all"
    )


if __name__ == "__main__":
    command.stage(main, lambda name: params.determining(params.load(), name))
