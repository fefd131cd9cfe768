"""`make plan`: how long the study in params.yaml will take, and what it will cost.

Speeds are measured on this machine by short trainings, or read from a table (`SPEEDS=file.yaml`, a
mapping from rows to the images per second of one worker). The nodes are this machine, the cluster that
RAY_ADDRESS names, or `NODES=4 CPUS=16 GPUS=4`; `PRICE` is the price of one node for an hour.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.local import s3
from pipeline import command, machine, params, paths
from pipeline.checkpoint import Checkpoint
from pipeline.cluster import client
from pipeline.commands import makespan
from pipeline.data import dataset
from pipeline.errors import ParamsError
from pipeline.execution.there import cluster
from pipeline.files import write_json
from pipeline.models import weights
from pipeline.models.predict import device
from pipeline.params import Study
from pipeline.progress import Progress, spoken
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import MEASURING
from pipeline.storage.shard_store import ShardCache
from pipeline.training import hardware, result
from pipeline.training.schedule import load_schedule
from pipeline.training.speed import Speed, measure, what_costs, worker_batch
from pipeline.training.training import Training

WANTED = ("nodes", "cpus", "gpus", "price", "speeds")


def main(*arguments: str) -> None:
    """Prints the plan, with the actual times of rows that have their results, and stores it."""
    options, study = _options(arguments), params.load()
    data = dataset.load(paths.ARRAYS)
    shapes, count, place = _nodes(options, study)
    start_s = makespan.WARM_START_S if shapes is None else makespan.START_S
    slots = machine.cores() if shapes is None else client.places(shapes, study.execution.share)
    speeds = _speeds(study, options)
    rows, trainings = {}, []
    for name in study.models:
        row = params.row_of(study, name)
        training, updates = _training(study, name, data.digest)
        seconds = makespan.training_s(row, updates, speeds[name], start_s)
        low, high = row.worker_bounds
        workers = max(low, min(high, slots))
        # here a row takes a core for each thread; on nodes each worker takes its share
        taken = min(slots, row.threads * low) if shapes is None else workers
        trainings.append((taken, seconds))
        rows[name] = {
            "run_key": training.key if training else None,
            "images_per_s": round(row.global_batch_size / speeds[name].update_s, 1),
            "predicted_s": round(seconds, 1),
            "real_s": _real_s(training) if training else None,
        }
    total_s = makespan.makespan_s(trainings, slots)
    write_json(paths.PLAN, {"where": place, "rows": rows, "makespan_s": round(total_s, 1)})
    _show(rows, total_s, place, slots, float(options.get("price", 0)) * count)


def _training(study: Study, name: str, data: str) -> tuple[Training | None, int]:
    """Returns a row's training and its updates; None for a schedule that a search has yet to find."""
    path = Path(study.models[name].schedule)
    if (search := study.models[name].tuned_by) and not path.exists():
        return None, study.tune[search].total_updates
    schedule = load_schedule(path)
    return Training.of(name, params.row_of(study, name), schedule, data), schedule.total_updates


def _options(arguments: tuple[str, ...]) -> dict[str, str]:
    found = dict(argument.partition("=")[::2] for argument in arguments)
    options = {name: value for name, value in found.items() if value}
    if unknown := sorted(options.keys() - set(WANTED)):
        raise ParamsError(f"plan: unknown option {unknown[0]}, wanted one of {', '.join(WANTED)}")
    for name in options.keys() - {"speeds"}:
        try:
            positive = float(options[name]) > 0
        except ValueError:
            positive = False
        if not positive and not (name == "gpus" and options[name] == "0"):
            raise ParamsError(f"plan: {name.upper()} is {options[name]!r}, wanted a number above 0")
    return options


def _nodes(
    options: Mapping[str, str], study: Study
) -> tuple[list[dict[str, float]] | None, int, str]:
    """Returns the nodes' shapes (None: this machine, rows side by side), their count, and a text."""
    if "nodes" in options:
        count = int(float(options["nodes"]))
        shape = {
            "CPU": float(options.get("cpus", machine.cores())), "GPU": float(options.get("gpus", 0))
        }  # fmt: skip
        return (
            [shape] * count,
            count,
            f"{count} nodes of {shape['CPU']:g} CPU, {shape['GPU']:g} GPU",
        )
    if there := cluster():
        shapes = [shape for shape in there.shapes() if shape.get("CPU", 0) > 0]
        if not shapes:
            raise ParamsError(
                f"plan: {there.address} has no workers now (an autoscaler may add some): describe "
                "them by NODES, CPUS and GPUS"
            )
        return shapes, len(shapes), f"{len(shapes)} nodes at {there.address}"
    return None, 1, f"this machine ({hardware.hardware()})"


def _speeds(study: Study, options: Mapping[str, str]) -> dict[str, Speed]:
    if "speeds" in options:
        table = params.read_yaml(Path(options["speeds"]))
        missing = [name for name in study.models if name not in table]
        if missing:
            raise ParamsError(f"{options['speeds']}: no images per second for {', '.join(missing)}")
        return {
            name: Speed(worker_batch(params.row_of(study, name)) / float(table[name]), 0.0)
            for name in study.models
        }
    storage, found = s3.connect(), {}
    store = CheckpointStore(storage, f"{MEASURING}{secrets.token_hex(4)}")
    files = ShardCache(storage, machine.cores())
    kinds = {what_costs(params.row_of(study, name)): name for name in study.models}
    with Progress("measuring speeds", len(kinds), "networks") as progress:
        for kind, name in kinds.items():
            try:
                found[kind] = measure(
                    params.row_of(study, name), paths.ARRAYS, files, _Fresh(store), device()
                )
            finally:
                store.clear()
            progress.advance(1)
    return {name: found[what_costs(params.row_of(study, name))] for name in study.models}


class _Fresh:
    """Checkpoints that are saved, at the real cost, and never resumed from."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store

    def latest(self) -> None:
        """Returns None."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Commits a checkpoint."""
        self._store.save(checkpoint)


def _real_s(training: Training) -> float | None:
    """Returns the seconds that a row's training really took, or None if its result is not there."""
    folder = paths.run(training.name)
    if not result.is_collected(folder, training):
        return None
    return round(weights.look(folder).wall_seconds, 1)


def _show(
    rows: dict[str, dict[str, Any]], total_s: float, place: str, slots: int, price: float
) -> None:
    print(f"{'row':24} {'images/s':>10} {'predicted':>12} {'actual':>12} {'ratio':>15}")
    for name, row in rows.items():
        real = row["real_s"]
        ratio = f"{real / row['predicted_s']:15.2f}" if real else ""
        print(
            f"{name:24} {row['images_per_s']:10,.0f} {_time(row['predicted_s']):>12} "
            f"{_time(real) if real else '':>12} {ratio}"
        )
    both = [row for row in rows.values() if row["real_s"]]
    if both:
        ratio = sum(row["real_s"] for row in both) / sum(row["predicted_s"] for row in both)
        print(f"the {len(both)} trainings that have ended took {ratio:.2f} times the prediction")
    cost = f", {price * total_s / 3600:,.2f} at your price" if price else ""
    print(
        f"all trainings on {place}, {slots} worker{'s' if slots > 1 else ''} at once: "
        f"{_time(total_s)}{cost} (without the search, evaluation and report)"
    )


def _time(seconds: float) -> str:
    return "never: not enough room" if seconds == float("inf") else spoken(seconds)


if __name__ == "__main__":
    command.main(main)
