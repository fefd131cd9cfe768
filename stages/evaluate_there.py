"""Of stage `evaluate`: photographs are evaluated over all nodes of the cluster of RAY_ADDRESS."""

import sys
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.cluster.jobs import Cluster, Work
from pipeline.data.dataset import Dataset
from pipeline.errors import StorageError
from pipeline.evaluation.tables import Table
from pipeline.params import Row, canonical_sha256
from pipeline.storage.evaluations import EvaluationStore
from pipeline.training.identity import KEY_LENGTH, computing
from stages import where


def tables(
    there: Cluster, name: str, row: Row, network: str, data: Dataset
) -> dict[tuple[str, str], Table]:
    """Returns what the cluster finds of a row, by split and view; what S3 has is not computed again.

    `network` is the sha256 of the row's weights.
    """
    study, storage = params.load(), s3.connect()
    what = {
        "data": data.digest,
        "scales_px": list(study.evaluation.scales_px or ()),
        "crop_px": row.crop_px,
        "precision": row.precision,
        "threads": row.threads,
    }
    source = computing("pipeline.evaluation.parts")
    key = canonical_sha256({**what, "network": network, "source": source})[:KEY_LENGTH]
    store = EvaluationStore(storage, key)
    if (found := _whole(store)) is None:
        where.make_ready(there, data.digest, storage)
        there.require_room(f"models.{name}", 1, study.execution.share)
        store.put_network(Path("runs") / name)
        facts = {"kind": "evaluation", "row": name, "study": study.study}
        title = f"evaluate {name}"
        document = {
            **what, "kind": "evaluation", "name": title, "key": key, "share": study.execution.share,
        }  # fmt: skip
        there.finish(Work(key, title, facts, document))
        found = store.tables()
    if found is None:
        raise StorageError(f"evaluate {name}: its job ended, and S3 has no evaluation {key}")
    return found


def _whole(store: EvaluationStore) -> dict[tuple[str, str], Table] | None:
    """Returns what was evaluated before; None where there is nothing, or it is damaged."""
    try:
        return store.tables()
    except StorageError as error:
        print(f"warning: {error}: evaluated again", file=sys.stderr, flush=True)
        return None
