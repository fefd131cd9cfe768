"""The evaluation of a row: collected from who trained it or from a cluster, else made here."""

import sys
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.data.prepared import Prepared
from pipeline.errors import ResourceError, ScoreError, StorageError
from pipeline.evaluation.tables import Evaluation
from pipeline.evaluations import EvaluationStore, key_of, what_is_evaluated
from pipeline.execution.place import named_cluster
from pipeline.models import weights
from pipeline.models.weights import ModelFacts
from pipeline.params import Study
from pipeline.storage.layout import TRAININGS, Instances
from pipeline.storage.objects import Storage

if TYPE_CHECKING:
    from pipeline.execution.there import There


def evaluation_of(study: Study, name: str, data: Prepared, storage: Storage | None) -> Evaluation:
    """Returns the evaluation of the network in `runs/<name>`.

    Photographs are evaluated on the cluster, if there is one, all else by who trained; what S3 does not have, or
    all if there is no `storage`, is evaluated here. Raises CheckpointError for damaged weights, ScoreError for
    those of other data.
    """
    row, sides = study.models[name], study.evaluation.scales_px
    facts, _ = weights.read(paths.run(name))
    _require_same_data(facts, data)
    if storage is None:
        return _evaluated_here(study, name, data, None)
    what = what_is_evaluated(row, data.digest, sides)
    store = EvaluationStore(storage, key_of(row, what, facts.sha256))
    if (found := _stored(store)) is not None:
        return found
    there = named_cluster(study, storage)
    if there and data.is_sharded:
        there.make_ready(data.digest)
        store.put_network(paths.run(name))
        there.evaluate(name, store, what, lambda: _stored(store) is not None)
        if (found := store.load()) is None:
            raise StorageError(
                f"evaluate {name}: its job ended, but S3 has no evaluation {store.key}"
            )
        return found
    if there and (found := _awaited(there, store, facts)) is not None:
        return found
    found = _evaluated_here(study, name, data, storage)
    try:
        store.save(found)  # for the next time that the stage's code changes, and for colleagues
    except StorageError as error:
        print(f"warning: {error}: this evaluation is not on S3", file=sys.stderr, flush=True)
    return found


def _require_same_data(facts: ModelFacts, data: Prepared) -> None:
    if facts.data_digest != data.digest:
        raise ScoreError(
            f"{facts.name}: runs/{facts.name} was trained on the data set {facts.data_digest[:12]}, the "
            f"prepared one is {data.digest[:12]}, whose test images may be among the training images of the "
            f"former: `dvc repro train@{facts.name}` trains it on the present data"
        )


def _stored(store: EvaluationStore) -> Evaluation | None:
    """Returns an evaluation on S3, or None if there is none or it is damaged."""
    try:
        return store.load()
    except StorageError as error:
        print(f"warning: {error}: evaluating again", file=sys.stderr, flush=True)
        return None


def _awaited(there: "There", store: EvaluationStore, facts: ModelFacts) -> Evaluation | None:
    """Returns what a training's job stores if it is still at it; None if it is not, or cannot be asked."""
    if facts.instance != Instances(there.storage, TRAININGS, facts.run_key).current():
        return None
    try:
        there.wait_for(facts.run_key)
    except ResourceError as error:
        print(f"warning: {error}: evaluating here", file=sys.stderr, flush=True)
    return _stored(store)


def _evaluated_here(study: Study, name: str, data: Prepared, storage: Storage | None) -> Evaluation:
    # here: they import torch, which a collected evaluation does not need
    from pipeline.data import dataset
    from pipeline.evaluation.whole import evaluate
    from pipeline.machine import cores
    from pipeline.models.predict import device
    from pipeline.storage.shard_store import ShardCache

    files = ShardCache(storage, cores()) if storage and data.is_sharded else None
    arrays, trained = dataset.load(paths.ARRAYS, files), weights.load(paths.run(name))
    row, sides = study.models[name], study.evaluation.scales_px
    return evaluate(name, row, sides, arrays, trained, device())
