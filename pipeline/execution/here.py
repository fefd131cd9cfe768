"""Work on this machine: rows side by side on an embedded Ray, a lock for each key.

Ray is imported only if there is something to do: collecting a result does not wait for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from pipeline import paths
from pipeline.command import begun as started
from pipeline.data import prepared
from pipeline.execution import begun
from pipeline.files import exclusively
from pipeline.params import Study
from pipeline.storage.objects import Storage
from pipeline.tracking import results
from pipeline.training.training import Training
from pipeline.tuning.search import Search


@dataclass(frozen=True)
class Here:
    """This machine, as a `Place`."""

    study: Study
    storage: Storage

    def only_one(self, key: str, what: str) -> AbstractContextManager[None]:
        """Holds the key's lock."""
        return exclusively(begun.lock_of(key), what)

    def require_idle(self, key: str, request: str | None = None) -> None:
        """Does nothing: the key's lock takes care of it."""

    def train(self, training: Training) -> None:
        """Trains in this process, or in several worker processes."""
        from pipeline.cluster.trainer import train

        with results.followed(self.study, self.storage, here=True) as follow, follow(training):
            train(training, paths.ARRAYS, started())

    def train_all(self, trainings: Sequence[Training]) -> None:
        """Trains side by side; a row's failure is printed and noted, and does not stop the others."""
        if not trainings:
            return
        from pipeline.cluster.side_by_side import train_side_by_side

        with results.followed(self.study, self.storage, here=True) as follow:

            @contextmanager
            def watch(training: Training) -> Iterator[None]:
                with self.only_one(training.key, f"the training of {training.name}"):
                    begun.refuse_training_left_behind(training, self.storage)
                    try:
                        with follow(training):
                            yield
                    finally:
                        begun.note(training.key, None)

            height, width = prepared.look(paths.ARRAYS).input_size(trainings[0].row.crop_px)
            failed = train_side_by_side(
                trainings, paths.ARRAYS, height * width, self.study.execution.worker_gpus, watch
            )
        for training in trainings:
            if error := failed.get(training.name):
                begun.note(training.key, str(error))
                print(f"{training.name}: failed: {error}", flush=True)

    def search(self, name: str, search: Search) -> None:
        """Runs the search, up to `trials_at_once` trials at a time, as cores allow."""
        from pipeline.cluster.tuner import search_here

        with search.followed():
            search_here(search, paths.ARRAYS, self.study.execution.trials_at_once)
