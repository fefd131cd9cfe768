"""Several workers of one training, as processes that talk by gloo: one record for all of them."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from pipeline.data import dataset, prepared
from pipeline.data.feeding import shown
from pipeline.errors import ReplicasError
from pipeline.params import Row
from pipeline.training import run as training
from pipeline.training.golden import Folder, joined
from pipeline.training.history import history_digest
from pipeline.training.loop import loss_and_wrong
from pipeline.training.schedules.plateau import PlateauSchedule
from pipeline.training.state import TrainingState
from pipeline.training.training import Training

CPU = torch.device("cpu")
ASTRAY = 9
# each report that is not five points better drops the rate: where replicas judge apart, they differ soon
SCHEDULE = PlateauSchedule(
    shape="plateau", base_lr=0.05, total_updates=24, warmup=None, max_drops=3, patience_reports=1,
    min_gain_pct=5.0,
)  # fmt: skip


def val_of(state: TrainingState, path: Path, rank: int, workers: int) -> tuple[float, float]:
    """Returns the sums of loss and errors of a worker's share of the validation images."""
    data = dataset.load(path)
    share = data.val.share(rank, workers)
    inputs = shown.inputs(share, data.mean, None, CPU)
    return tuple(loss_and_wrong(state.model, inputs, share.labels, "float32").tolist())


def work(rank: int, workers: int, folder: Path, path: Path, *rows: Row) -> None:
    """Trains as one of several workers: a row, and then one of which worker 1 goes astray before an update."""
    for number, (row, spoiled) in enumerate(zip(rows, (None, ASTRAY), strict=False)):
        (own := folder / str(number)).mkdir(exist_ok=True)
        with joined(own / "meeting", rank, workers):
            train(rank, workers, own, path, row, spoiled)


def train(rank: int, workers: int, folder: Path, path: Path, row: Row, spoiled: int | None) -> None:
    what = Training("net", row, SCHEDULE, prepared.look(path).digest, "k" * 24)
    step_of = training._step

    def astray(row: Row, state: TrainingState, *rest: Any) -> Callable[..., Any]:
        step = step_of(row, state, *rest)

        def update(*batch: torch.Tensor) -> Any:
            if rank == 1 and state.update == spoiled:
                state.model.fc.bias.data += 0.001
            return step(*batch)

        return update

    if spoiled is not None:
        training._step = astray
    try:
        state = training.run(
            what, path, Folder(folder), started=time.time(), device=CPU, rank=rank, workers=workers,
            on_report=lambda history: None,
        )  # fmt: skip
        said = {
            "weights": hashlib.sha256(state.tensors()).hexdigest(),
            "history": history_digest(state.history),
            "lines": [vars(record) for record in state.history],
            "alone": val_of(state, path, 0, 1),
            "shares": [val_of(state, path, other, workers) for other in range(workers)],
        }
    except ReplicasError as error:
        said = {"refused": str(error)}
    (folder / f"said-{rank}").write_text(json.dumps(said))


def together(folder: Path, workers: int, path: Path, *rows: Row) -> list[list[dict[str, Any]]]:
    """Returns what each worker says at the end of each row."""
    spawn(work, (workers, folder, path, *rows), nprocs=workers)
    return [
        [json.loads((folder / f"{number}/said-{rank}").read_text()) for rank in range(workers)]
        for number in range(len(rows))
    ]


@pytest.mark.slow
def test_all_workers_are_one_training_and_one_that_goes_astray_stops_all(
    tmp_path: Path, digits_path: Path, row: Callable[..., Row]
):
    rows = (row(report_every_updates=2), row(report_every_updates=4))
    equal, astray = together(tmp_path, 2, digits_path, *rows)
    require_one_training(equal, digits_path)
    for one in astray:
        said = "after update 12 the weights or the history of worker 1 of 2 differ"
        assert said in one["refused"]
    stored = sorted((tmp_path / "1").glob("*.json"))
    assert [path.stem for path in stored] == ["00000004", "00000008"]


@pytest.mark.trial
def test_four_workers_are_one_training(tmp_path: Path, digits_path: Path, row: Callable[..., Row]):
    (equal,) = together(tmp_path, 4, digits_path, row(report_every_updates=2))
    require_one_training(equal, digits_path)


def require_one_training(said: list[dict[str, Any]], digits_path: Path) -> None:
    """Requires of all workers one history and the same weights, and of the history that it is theirs."""
    assert len({one["weights"] for one in said}) == 1
    assert len({one["history"] for one in said}) == 1
    assert all(one["lines"] == said[0]["lines"] for one in said)  # timings too: there is one record
    rates = {line["lr"] for line in said[0]["lines"]}
    assert len(rates) > 1, "the plateau did not drop: the test shows nothing"
    for (
        one
    ) in said:  # the weights' statistics are fixed now: validation is the same however it is split
        added = [sum(values) for values in zip(*one["shares"], strict=True)]
        assert added == pytest.approx(one["alone"], rel=1e-5)
    images = len(dataset.load(digits_path).val)
    last = said[0]["lines"][-1]
    assert last["val_loss"] == pytest.approx(said[0]["alone"][0] / images, rel=1e-5)
    assert last["val_error_pct"] == pytest.approx(100 * said[0]["alone"][1] / images)
