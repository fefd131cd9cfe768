"""`make bring FROM=<folder>`: commits trainings of a machine without S3 (`pipeline.training.offline`)."""

from pathlib import Path

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.errors import ParamsError
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.training.offline import FolderCheckpoints


def main(folder: str = "") -> None:
    """Commits the last checkpoint of each training in the folder that S3 has not got as far."""
    keys = sorted(path.stem for path in Path(folder or "missing").glob("*.json"))
    if not keys:
        raise ParamsError(
            f"FROM={folder}: wanted a folder in which pipeline.training.offline trained"
        )
    study, storage = params.load(), s3.connect()
    wanted = Wanted(study, prepared.look(paths.ARRAYS).digest, storage, place_of(study, storage))
    found = [FolderCheckpoints(Path(folder), key).latest() for key in keys]
    trained = [(wanted.training(one.facts.name), one) for one in found if one is not None]
    for training, checkpoint in trained:  # before any is committed
        training.check(checkpoint.facts)
    for training, checkpoint in trained:
        facts = checkpoint.facts
        with wanted.place.only_one(training.key, f"the training of {facts.name}"):
            wanted.place.require_idle(training.key)
            checkpoints = CheckpointStore.of(training, storage, commit=facts.commit)
            there = checkpoints.facts()
            if there is not None and there.update >= facts.update:
                print(f"{facts.name}: S3 has it up to update {there.update:,} already")
                continue
            checkpoints.save(checkpoint)
            print(f"{facts.name}: {facts.update:,} of {facts.total_updates:,} updates committed")
    print("`dvc repro` collects what is finished and goes on with the rest")


if __name__ == "__main__":
    command.main(main)
