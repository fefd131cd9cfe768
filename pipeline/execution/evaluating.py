"""Evaluates a row where its data are: photographs on the cluster, if there is one, all else here."""

import sys

from pipeline import paths
from pipeline.data.dataset import Dataset
from pipeline.errors import StorageError
from pipeline.evaluation.parts import all_parts
from pipeline.evaluation.tables import Tables
from pipeline.execution.place import named_cluster
from pipeline.execution.there import There
from pipeline.models.weights import Trained
from pipeline.params import Row, Study, canonical_sha256
from pipeline.storage.evaluations import EvaluationStore
from pipeline.storage.objects import Storage
from pipeline.training.identity import KEY_LENGTH, computing


def tables_of(
    study: Study, name: str, trained: Trained, data: Dataset, storage: Storage | None
) -> Tables:
    """Returns the predictions of a row by split and view; `storage` is where photographs are."""
    row, sides = study.models[name], study.evaluation.scales_px
    if storage and (there := named_cluster(study, storage)):
        return _tables_there(there, name, row, trained.facts.sha256, data)
    return all_parts(name, row, sides, data, trained)


def _tables_there(there: There, name: str, row: Row, network: str, data: Dataset) -> Tables:
    """Returns the cluster's evaluation of a row; one that is already on S3 is not computed again.

    `network` is the sha256 of the row's weights.
    """
    what = {
        "data": data.digest,
        "scales_px": list(there.study.evaluation.scales_px or ()),
        "crop_px": row.crop_px,
        "precision": row.precision,
        "threads": row.threads,
    }
    family = f"pipeline.models.families.{row.network.family}"
    source = computing("pipeline.evaluation.parts", family)
    key = canonical_sha256({**what, "network": network, "source": source})[:KEY_LENGTH]
    store = EvaluationStore(there.storage, key)
    if (found := _whole(store)) is None:
        there.make_ready(data.digest)
        store.put_network(paths.run(name))
        there.evaluate(name, key, what)
        found = store.tables()
    if found is None:
        raise StorageError(f"evaluate {name}: its job ended, but S3 has no evaluation {key}")
    return found


def _whole(store: EvaluationStore) -> Tables | None:
    """Returns an earlier evaluation, or None if there is none or it is damaged."""
    try:
        return store.tables()
    except StorageError as error:
        print(f"warning: {error}: evaluating again", file=sys.stderr, flush=True)
        return None
