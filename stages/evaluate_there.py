"""Of stage `evaluate`: photographs are evaluated over all nodes of the cluster of RAY_ADDRESS."""

from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.cluster import jobs
from pipeline.cluster.jobs import Cluster, Work
from pipeline.data.arrays import Arrays
from pipeline.errors import StorageError
from pipeline.evaluation.parts import Table
from pipeline.models import weights
from pipeline.params import Row, canonical_sha256
from pipeline.storage.datasets import DataSets
from pipeline.storage.evaluations import EvaluationStore
from pipeline.training.identity import KEY_LENGTH, source_digest
from stages import stage


def cluster() -> Cluster | None:
    """Returns the cluster that RAY_ADDRESS names, or None."""
    address = jobs.address()
    return Cluster(address, stage.occasion()) if address else None


def tables(
    there: Cluster, name: str, row: Row, scales_px: tuple[int, ...], data: Arrays
) -> dict[tuple[str, str], Table]:
    """Returns what the cluster finds of a row, by split and view; what S3 has is not computed again."""
    folder, storage, execution = Path("runs") / name, s3.connect(), params.load().execution
    what = {
        "data": data.digest,
        "scales_px": list(scales_px),
        "crop_px": row.crop_px,
        "precision": row.precision,
    }
    network = weights.load(folder).facts["sha256"]
    source = source_digest("models", "data", "evaluation")
    key = canonical_sha256({**what, "network": network, "source": source})[:KEY_LENGTH]
    store = EvaluationStore(storage, key)
    if stage.is_forced():
        store.clear()
    if (found := store.tables()) is None:
        there.require_versions()
        there.require_room(f"models.{name}", 1, execution.share)
        DataSets(storage).upload(data.digest, Path("data/arrays.safetensors"))
        store.put_network(folder)
        facts = {"kind": "evaluation", "row": name, "study": params.load().study}
        title = f"evaluate {name}"
        document = {
            **what, "kind": "evaluation", "name": title, "key": key, "share": execution.share,
        }  # fmt: skip
        there.finish(Work(key, title, facts, document))
        found = store.tables()
    if found is None:
        raise StorageError(f"evaluate {name}: its job ended, and S3 has no evaluations/{key}")
    return found
