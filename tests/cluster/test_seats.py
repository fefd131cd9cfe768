"""Which rows train beside which, by arithmetic; what a process imports that only submits."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from infra import attest
from pipeline import machine
from pipeline.cluster import side_by_side
from pipeline.errors import ParamsError, TrainingError
from pipeline.params import Row, validate
from pipeline.training.schedule import Schedule
from pipeline.training.training import Training
from tests.conftest import REPO


def test_a_lone_training_that_fails_by_an_error_of_torchs_is_told_as_any_other(
    monkeypatch: pytest.MonkeyPatch, row: Callable[..., Row]
):
    """Else `handover` would end in it, and `train@row` would train again what has just failed."""

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("pipeline.cluster.trainer.train", out_of_memory)
    failed = side_by_side._train_alone(job(row()), Path("data"), lambda _: nullcontext())
    assert isinstance(failed["row"], TrainingError)
    assert "row: RuntimeError: CUDA out of memory" in str(failed["row"])


def job(row: Row, updates: int = 10) -> Training:
    document: dict[str, Any] = {
        "shape": "cosine", "base_lr": 0.1, "total_updates": updates, "warmup": None,
    }  # fmt: skip
    return Training("row", row, validate(Schedule, document, "test"), "data", "key")


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> side_by_side._Crew:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 10e9)
    return side_by_side._Crew(Path("data"), gpus=1.0)


def beside(crew: side_by_side._Crew, *places: side_by_side.Seat) -> bool:
    """Tells whether the last seat has room beside the others."""
    *first, last = places
    for seat in first:
        assert crew.has_room(seat)
        crew._take(seat, -1)
        crew.running[object()] = seat
    return crew.has_room(last)


def seat(row: Row, cores: float = 1, gpus: float = 0, gb: float = 1) -> side_by_side.Seat:
    return side_by_side.Seat(job(row), cores, gpus, gb * 1e9)


def test_rows_share_the_cores(crew: side_by_side._Crew, row: Callable[..., Row]):
    assert beside(crew, seat(row(), 2), seat(row(), 1), seat(row(), 1))
    assert not beside(crew, seat(row(), 1), seat(row(), 1))


def test_rows_share_the_memory(crew: side_by_side._Crew, row: Callable[..., Row]):
    assert not beside(crew, seat(row(), gb=6), seat(row(), gb=5))


def test_rows_share_a_gpu_whose_memory_is_not_the_machines(
    crew: side_by_side._Crew, row: Callable[..., Row]
):
    half = seat(row(), gpus=0.5, gb=9)
    assert beside(crew, half, half)
    assert not beside(crew, half, seat(row(), gpus=0.1))


def test_alone_every_row_has_room(crew: side_by_side._Crew, row: Callable[..., Row]):
    assert crew.has_room(seat(row(), cores=64, gpus=8, gb=1000))


def test_longer_rows_come_first(row: Callable[..., Row]):
    network = row().network.model_dump()
    deep, wide = row(network={**network, "depth": 20}), row(global_batch_size=64)
    assert side_by_side.predicted_work(job(row())) < side_by_side.predicted_work(job(deep))
    assert side_by_side.predicted_work(job(row())) < side_by_side.predicted_work(job(wide))
    assert side_by_side.predicted_work(job(row())) < side_by_side.predicted_work(
        job(row(), updates=11)
    )
    assert side_by_side.predicted_work(job(row(threads=2))) < side_by_side.predicted_work(
        job(row())
    )


def test_memory_grows_with_images_and_workers_and_shrinks_with_recomputation(
    row: Callable[..., Row],
):
    def gb(pixels: int = 1024, **changes: Any) -> float:
        return side_by_side.memory_bytes(job(row(**changes)), pixels)

    assert gb() < gb(global_batch_size=64) and gb() < gb(pixels=4096) and gb() < gb(workers=2)
    assert gb(activation_checkpointing=True) < gb()
    assert gb(gradient_accumulation_steps=4) < gb()


def test_the_cores_are_what_one_says_or_what_control_groups_allow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(machine, "_groups", lambda: iter([tmp_path]))
    (tmp_path / "cpu.cfs_quota_us").write_text("150000\n")  # version 1
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.cores() == 1
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cores() == 1
    monkeypatch.setenv(machine.CPUS, "3")
    assert machine.cores() == 3
    monkeypatch.setenv(machine.CPUS, "many")
    with pytest.raises(ParamsError, match="STUDY_CPUS: found 'many'"):
        machine.cores()


def test_memory_is_what_control_groups_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(machine, "_groups", lambda: iter([tmp_path]))
    of_files = (
        "anon 100\n{0}inactive_file 1000\n{0}active_file 500\n"  # read again where they are wanted
    )
    for most, used, prefix in (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), ("memory.max", "memory.current", ""),
    ):  # fmt: skip
        (tmp_path / most).write_text("5000\n")
        (tmp_path / used).write_text("3500\n")
        (tmp_path / "memory.stat").write_text(of_files.format(prefix))
        assert machine.free_memory_bytes() == 3000
        (tmp_path / most).unlink()


@pytest.mark.parametrize("document", attest.NETWORKS.values(), ids=list(attest.NETWORKS))
def test_every_family_has_an_estimate_of_its_memory_and_work(
    row: Callable[..., Row], document: dict
):
    wanted = job(row(network=document))
    assert side_by_side.memory_bytes(wanted, 64 * 64) > side_by_side.WORKER_BYTES
    assert side_by_side.predicted_work(wanted) > 0


def test_who_submits_to_a_cluster_does_not_import_torch():
    code = "import sys, pipeline.execution.there, pipeline.cluster.client; print('torch' in sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=REPO, text=True)
    assert said == "False\n"
