"""Evaluates a network on photographs on all nodes of a cluster: one task for each shard and view."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ray.exceptions import RayError

from pipeline.cluster import pieces
from pipeline.cluster.retry import PATIENCE_S, until_done
from pipeline.data import dataset
from pipeline.errors import StudyError
from pipeline.evaluation.parts import Part, assembled, evaluated, parts_of, times_shown
from pipeline.evaluation.tables import Evaluation, Table
from pipeline.evaluation.whole import costs
from pipeline.evaluations import EvaluationStore
from pipeline.files import scratch
from pipeline.models import weights
from pipeline.models.predict import device, keep_freed_memory
from pipeline.progress import Progress
from pipeline.storage.datasets import DataSets
from pipeline.storage.objects import Storage
from pipeline.storage.shard_store import ShardCache


def evaluate_there(spec: dict[str, Any]) -> None:
    """Evaluates the network of a job's document on the cluster that this driver has joined.

    Afterwards the tables of all splits and views are on S3, under the job's key.
    """
    storage = Storage(patience_s=PATIENCE_S)
    data = dataset.load(DataSets(storage).cached(spec["data"]))
    wanted, share = parts_of(data, spec["scales_px"]), spec["share"]
    tables: dict[Part, Table] = {}

    def attempt() -> None:
        missing = [asdict(part) for part in wanted if part not in tables]
        for row in pieces.done(
            missing,
            _Evaluator,
            fn_constructor_args=(spec,),
            num_cpus=share["CPU"],
            num_gpus=share["GPU"],
            concurrency=(1, max(1, len(missing))),
        ):
            part = Part(row["split"], row["view"], row["first"], row["end"])
            names = [name for name in row if name not in asdict(part)]
            tables[part] = {name: np.asarray(row[name]) for name in names}
            progress.advance(times_shown(part.view, spec["scales_px"]) * len(part.of(data)))

    total = sum(times_shown(part.view, spec["scales_px"]) * len(part.of(data)) for part in wanted)
    with Progress(spec["name"], total, "images") as progress:
        until_done(spec["name"], lambda: len(tables), attempt, (RayError,))
    store = EvaluationStore(storage, spec["key"])
    with scratch("network") as folder:
        store.fetch_network(folder)
        trained = weights.load(folder)
    store.save(Evaluation(assembled(tables), [], costs(trained)))


class _Evaluator:
    """A worker that holds the network and evaluates parts."""

    def __init__(self, spec: dict[str, Any]) -> None:
        keep_freed_memory()
        torch.set_num_threads(spec["threads"])
        storage = Storage(patience_s=PATIENCE_S)
        self._spec = spec
        self._data = dataset.load(
            DataSets(storage).cached(spec["data"]), ShardCache(storage, spec["share"]["CPU"])
        )
        with scratch("network") as folder:
            EvaluationStore(storage, spec["key"]).fetch_network(folder)
            self._trained = weights.load(folder)
        self._trained.model.to(device())

    def __call__(self, row: pieces.Part) -> pieces.Part:
        """Returns the part with its table."""
        spec = self._spec
        try:
            table = evaluated(
                self._trained, self._data, Part(**row), spec["crop_px"], spec["scales_px"],
                spec["precision"], device(),
            )  # fmt: skip
        except StudyError as error:
            return pieces.failed(error)
        return {**row, **table}
