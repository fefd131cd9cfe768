"""Collects, joins or begins a training or a search, whichever its key calls for."""

import sys

from pipeline.checkpoint import Checkpoint
from pipeline.errors import CheckpointError, ParamsError, TrainingError
from pipeline.execution import begun
from pipeline.execution.place import Place
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.training.identity import CONTINUE
from pipeline.training.training import Training
from pipeline.tuning.search import Search


def brought(training: Training, place: Place, storage: Storage) -> tuple[Checkpoint, bool]:
    """Returns the last checkpoint of a training, and whether it was there already.

    Raises CheckpointError, ParamsError, BusyError, and what the training raises.
    """
    checkpoints = CheckpointStore.of(training, storage)
    with place.only_one(training.key, f"the training of {training.name}"):
        if facts := checkpoints.facts():
            training.check(facts)
        elif training.overridden:
            raise ParamsError(
                f"{CONTINUE}: {training.name}={training.key}: there is no training with this key on S3"
            )
        if (found := checkpoints.finished()) is not None:
            return found, True
        begun.refuse_a_second_try(training.key)
        begun.refuse_training_left_behind(training, storage)
        try:
            place.train(training)
        except TrainingError as error:  # what trained may have died after its last checkpoint
            if (found := checkpoints.finished()) is None:
                raise
            print(f"warning: {error}: but it is at its end", file=sys.stderr, flush=True)
        else:
            found = checkpoints.finished()
    if found is None:
        raise CheckpointError(
            f"{training.name}: trained, but its last checkpoint is missing or damaged on S3: "
            "`dvc repro` goes on from the one before"
        )
    return found, False


def searched(name: str, search: Search, place: Place, storage: Storage) -> bool:
    """Runs a search until it is finished; returns whether it was finished already.

    Raises CheckpointError, BusyError, and what the search raises.
    """
    with place.only_one(search.key, "this search"):
        search.check(name)
        if search.is_done:
            return True
        if not search.has_begun:
            begun.refuse_search_left_behind(search, storage)
        place.search(name, search)
        if not search.is_done:  # it has joined a job for another number of trials
            place.search(name, search)
    return False
