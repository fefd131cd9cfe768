"""Stage `handover`: all stale trainings at once, before the first one is collected.

On a cluster they are submitted, and train side by side there while `dvc repro` collects them in turn;
without RAY_ADDRESS they train here, side by side, as far as this machine goes. A row that fails does
not stop the others: the stage `train` reports it. The output is always the same, so that it
invalidates no other stage.
"""

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.files import write


def main() -> None:
    """Trains or submits every row that has neither a result nor a live job."""
    study, data = params.load(), prepared.look(paths.ARRAYS)
    with s3.kept() as storage:
        place = place_of(study, storage)
        stale = Wanted(study, data.digest, storage, place).stale(list(study.models))
        place.train_all(stale)
    write(paths.STATE / "handover", "handed over\n")


if __name__ == "__main__":
    command.main(main)
