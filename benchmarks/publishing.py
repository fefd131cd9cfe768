"""Rate at which trainings are published to MLflow, beside that of bare `log_batch` calls with the same numbers.

`MLFLOW_TRACKING_URI=<database or server> python -m benchmarks.publishing`: 100 runs of 200 reports in turns of
25, each beside as many bare calls; it makes an experiment of its own name in an empty database.
"""

import statistics
import time
from dataclasses import asdict

from mlflow import MlflowClient
from mlflow.entities import Metric

from pipeline.checkpoint import Record
from pipeline.tracking.address import tracking_uri
from pipeline.tracking.tracker import Address, Tracker

RUNS, REPORTS, TURN = 100, 200, 25
MOST = 1000  # metrics in a request of MLflow's


def record(update: int) -> Record:
    """Returns a line of a history."""
    return Record(
        update=update, epoch=update / 100, lr=0.1, train_loss=1 / update, train_error_pct=50.0,
        val_loss=2 / update, val_error_pct=60.0, precision="float32", threads=1,
        seconds=float(update), train_images_per_s=1000.0,
    )  # fmt: skip


HISTORY = [record(update) for update in range(10, 10 * REPORTS + 1, 10)]


USAGE = [{f"system/{name}": 50.0 for name in ("cpu", "memory", "memory_share")}] * REPORTS


def bare(client: MlflowClient, experiment: str) -> None:
    """Logs the numbers of one run."""
    metrics = [
        Metric(name, float(value), 0, line.update)
        for line in HISTORY
        for name, value in {**asdict(line), **USAGE[0]}.items()
        if name != "update" and isinstance(value, int | float)
    ]
    run = client.create_run(experiment).info.run_id
    for first in range(0, len(metrics), MOST):
        client.log_batch(run, metrics[first : first + MOST])


def ours(tracker: Tracker, number: int) -> None:
    """Publishes one training."""
    params = {"network": {"family": "cifar", "depth": 20}, "seed": number}
    said = {
        "name": f"row-{number}",
        "key": f"key-{number}",
        "instance": 1,
        "tags": {},
        "params": params,
    }
    run = tracker.training(said, HISTORY)
    run.history(HISTORY, USAGE)
    run.status("FINISHED")


def main() -> None:
    """Prints the rates, and their ratio in each turn."""
    tracker = Tracker(Address("benchmark", "digest", "data"), lambda key, path: None)
    client, ratios = MlflowClient(tracking_uri()), []
    experiment = client.create_experiment("bare")
    for turn in range(RUNS // TURN):
        began = time.perf_counter()
        for _ in range(TURN):
            bare(client, experiment)
        between = time.perf_counter()
        for number in range(turn * TURN, (turn + 1) * TURN):
            ours(tracker, number)
        ended = time.perf_counter()
        ratios.append((between - began) / (ended - between))
        print(
            f"bare {TURN / (between - began):.1f} runs/s, ours {TURN / (ended - between):.1f} runs/s, "
            f"ratio {ratios[-1]:.2f}"
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
