"""What a study needs computed on its prepared data: each training and search, with key and instance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import params, paths
from pipeline.errors import CheckpointError, ParamsError
from pipeline.execution.begun import request
from pipeline.execution.place import Place
from pipeline.models import weights
from pipeline.params import Study
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import SEARCHES, TRAININGS, Instances
from pipeline.storage.objects import Storage
from pipeline.training import result
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training
from pipeline.tuning.search import Search


@dataclass(frozen=True)
class Wanted:
    """A study on prepared data with the digest `data`, at a place."""

    study: Study
    data: str
    storage: Storage
    place: Place

    def training(self, name: str) -> Training:
        """Returns the training of a row: the instance of it that this command is about."""
        row = params.row_of(self.study, name)
        schedule = load_schedule(Path(self.study.models[name].schedule))
        found = Training.of(name, row, schedule, self.data)
        return replace(found, instance=self._instance(TRAININGS, found.key))

    def search(self, name: str) -> Search:
        """Returns a search of the study: the instance of it that this command is about."""
        if name not in self.study.tune:
            raise ParamsError(
                f'params.yaml: tune has no search "{name}"; it has {", ".join(self.study.tune)}'
            )
        tune = self.study.tune[name]
        search = Search(tune, params.row_of(self.study, tune.model), self.data, self.storage)
        search.instance = self._instance(SEARCHES, search.key)
        return search

    def stale(self, rows: Sequence[str]) -> list[Training]:
        """Returns the trainings of those `rows` that have no result, here or on S3; of equal rows one."""
        found = dict[str, Training]()
        for name in rows:
            found.setdefault((one := self.training(name)).key, one)
        return [one for one in found.values() if not self._has_result(one)]

    def _has_result(self, training: Training) -> bool:
        # an instance that another clone or person began is asked for there, and not here
        asked = training if request() else replace(training, instance=1)
        if result.is_collected(paths.run(training.name), asked) or self._was_continued(training):
            return True
        facts = CheckpointStore.of(training, self.storage).facts()
        # if a person chose a key under which nothing is known, the stage `train` says so
        return facts.is_finished if facts else training.overridden

    def _was_continued(self, training: Training) -> bool:
        """Tells whether what is collected went on with a training of other code, as a person chose."""
        folder = paths.run(training.name)
        try:
            known = weights.look(folder)
        except CheckpointError:
            return False
        if not known.run_key_overridden or not (folder / paths.WEIGHTS).exists():
            return False
        facts = CheckpointStore(self.storage, known.run_key, instance=known.instance).facts()
        return facts is not None and facts.is_finished and training.is_of(facts)

    def _instance(self, kind: str, key: str) -> int:
        """Returns the last instance of a key that was begun; if the study is requested afresh, that
        request's own instance, which the first caller begins."""
        instances = Instances(self.storage, kind, key)
        if not (afresh := request()):
            return instances.current()
        self.place.require_idle(key, afresh)
        return instances.begin(afresh)
