"""All stale rows at once on this machine: failures, deaths, interruptions; the same bits on any cores."""

import json
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from torch.multiprocessing.spawn import spawn

from pipeline import paths
from pipeline.cluster import session
from pipeline.data import prepared
from pipeline.params import load
from pipeline.storage.objects import Storage
from pipeline.training import result
from pipeline.training.golden import Folder
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training
from tests.conftest import changed_params, copy_study, run_in
from tests.integration.alone import work
from tests.integration.trainings import (
    here,
    result_of,
    said_by,
    start,
    store_of,
    update_of,
    wait_for,
)

pytestmark = pytest.mark.integration
UPDATES, FEWER = 120, 60
SINGLE = ("one", "two")
ROWS = (*SINGLE, "pair")  # which takes Ray half a minute
HANDOVER = ("python", "-m", "stages.handover")


def three_rows(document: dict) -> None:
    """Two rows of one worker, the second with two threads, and one of two workers."""
    plain, residual = document["models"]["plain-8"], document["models"]["resnet-8"]
    long = {"schedule": "schedules/long.yaml", "report_every_updates": 20}
    document["models"] = {
        "one": {**plain, **long},
        "two": {**residual, **long, "threads": 2},
        "pair": {**plain, **long, "schedule": "schedules/fewer.yaml", "workers": 2},
    }
    document["tune"] = {}
    document["ensemble"] = {"members": ["one", "two"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Path:
    folder = copy_study(tmp_path_factory.mktemp("side") / "study", three_rows)
    for name, updates in (("long", UPDATES), ("fewer", FEWER)):
        (folder / f"schedules/{name}.yaml").write_text(
            f"shape: cosine\nbase_lr: 0.05\ntotal_updates: {updates}\nwarmup: null\n"
        )
    for command in (("python", "-m", "infra.local", "up"), ("dvc", "repro", "prepare")):
        assert run_in(folder, *command).returncode == 0
    return folder


@pytest.fixture(scope="module")
def wanted(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What each row ends with when it is trained alone, by the loop and torch, on one core."""
    found, arrays, document = {}, study / paths.ARRAYS, load(study / "params.yaml")
    data = prepared.look(arrays)
    for name in ROWS:
        row, folder = document.models[name], tmp_path_factory.mktemp(name)
        training = Training.of(name, row, load_schedule(study / row.schedule), data.digest)
        if (workers := row.worker_bounds[0]) > 1:
            spawn(work, (training, arrays, folder), nprocs=workers)
        else:
            work(0, training, arrays, folder)
        checkpoint = Folder(folder).latest()
        assert checkpoint is not None
        result.write_result(study / "runs" / name, training, data, checkpoint)
        found[name] = result_of(study, name)
        forget_results(study, name)
    return found


def forget_results(study: Path, name: str) -> None:
    for file in (study / "runs" / name).glob("*"):
        file.unlink()


def forget(study: Path, *names: str) -> None:
    for name in names or SINGLE:
        store_of(study, name).clear()
        forget_results(study, name)


def collected(study: Path, *names: str) -> dict[str, tuple[str, str]]:
    for name in names:
        done = here(study, "stages.train", name)
        assert "already trained" in done.stdout, done.stdout + done.stderr
    return {name: result_of(study, name) for name in names}


def kill_a_worker(process: subprocess.Popen[str], kind: str) -> None:
    """Kills the last of a handover's processes of that kind."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # others may just end
            if kind in " ".join(child.cmdline()):
                found.append(child)
    found[-1].kill()


def listening(process: subprocess.Popen[str]) -> set[str]:
    """Returns the addresses at which a handover's processes listen."""
    found = set()
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found |= {
                one.laddr.ip
                for one in child.net_connections("tcp")
                if one.status == psutil.CONN_LISTEN
            }
    return found


GOES_ON = "(one|two|pair): .* going on from update"


def require_as_asked(study: Path, rows: tuple[str, ...]) -> None:
    """Requires of trained rows the workers and threads that they ask for, and a commit."""
    facts = {name: json.loads((study / f"runs/{name}/model.json").read_text()) for name in rows}
    assert facts["pair"]["workers"] == 2
    assert "two" not in facts or facts["two"]["threads"] == 2
    assert len(facts["pair"]["commit"].removesuffix("-dirty")) == 40


def test_a_dead_worker_and_a_row_that_fails_change_no_bit_of_the_others(
    study: Path, wanted: dict, storage: Storage
):
    forget(study, *ROWS)

    def with_a_wild_one(document: dict) -> None:
        models = document["models"]
        models["wild"] = {**models["one"], "learning_rate_factor": 1e30}

    with changed_params(study, with_a_wild_one):
        targets = ("handover", *(f"train@{name}" for name in (*ROWS, "wild")))
        process = start(study, "dvc", "repro", "--keep-going", *targets, STUDY_CPUS="4")
        wait_for(lambda: update_of(store_of(study, "two")) > 0)
        kill_a_worker(process, "Worker.train")
        addresses: set[str] = set()

        def pair_trains() -> bool:
            addresses.update(listening(process))
            return update_of(store_of(study, "pair")) > 0

        wait_for(pair_trains)
        output = said_by(process)
    assert process.returncode != 0, output
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}  # where its two workers meet, too
    assert re.search(GOES_ON.replace("pair", "pair|wild"), output), output  # whichever was killed
    assert output.count("wild: failed: the loss of update") == 1, output
    assert output.count("the loss of update") == 2, output  # by handover, and by its own stage
    assert "failed to reproduce 'train@wild'" in output, output
    assert "(the next `dvc repro` tries again)" in output, output  # not tried twice in this one
    assert not re.search("^(one|two|pair): failed", output, re.MULTILINE), output
    assert {name: result_of(study, name) for name in ROWS} == wanted
    require_as_asked(study, ROWS)


@pytest.mark.trial
@pytest.mark.parametrize(
    "cores, rows, kind, told",
    [("1", ROWS, "Worker.train", GOES_ON),
     ("4", ROWS, "RayTrainWorker", "A worker died"),
     ("4", ("pair",), "RayTrainWorker", "pair: .* going on from [0-9]")],
)  # fmt: skip
def test_rows_outlive_a_dead_worker_and_end_on_any_number_of_cores_with_the_bits_of_one(
    study: Path,
    wanted: dict,
    storage: Storage,
    cores: str,
    rows: tuple[str, ...],
    kind: str,
    told: str,
):
    for name in set(ROWS) - set(rows):
        assert run_in(study, "python", "-m", "stages.train", name).returncode == 0
    forget(study, *rows)
    process = start(study, *HANDOVER, STUDY_CPUS=cores)
    row = "pair" if kind == "RayTrainWorker" else "two"
    wait_for(lambda: update_of(store_of(study, row)) > 0)
    kill_a_worker(process, kind)
    output = said_by(process)
    assert process.returncode == 0, output
    assert re.search(told, output), output
    assert not re.search("^(one|two|pair): failed", output, re.MULTILINE), output
    assert collected(study, *rows) == {name: wanted[name] for name in rows}
    require_as_asked(study, rows)


@pytest.mark.parametrize(
    "number, status", [pytest.param(signal.SIGINT, 130, marks=pytest.mark.trial), (signal.SIGKILL, -9)]
)  # fmt: skip
def test_an_interrupted_handover_goes_on(
    study: Path, wanted: dict, storage: Storage, number: signal.Signals, status: int
):
    forget(study)
    process = start(study, *HANDOVER)
    wait_for(lambda: update_of(store_of(study, "two")) > 0)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    for child in children if number == signal.SIGKILL else ():  # at once, as a container ends
        with suppress(psutil.NoSuchProcess):
            child.kill()
    output = said_by(process)
    assert process.returncode == status, output
    wait_for(lambda: not any(child.is_running() for child in children))
    again = run_in(study, *HANDOVER)
    assert again.returncode == 0, again.stdout + again.stderr
    facts = store_of(study, "two").facts()
    assert facts is not None and (facts.attempt == 2 or number == signal.SIGINT)
    assert collected(study, *SINGLE) == {name: wanted[name] for name in SINGLE}


def test_a_row_that_alone_is_stale_is_trained_without_ray_and_ends_the_same(
    study: Path, wanted: dict, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    for name in ("one", "pair"):
        if not (study / f"runs/{name}/model.json").exists():  # by the tests before this one
            assert run_in(study, "python", "-m", "stages.train", name).returncode == 0
    forget(study, "two")
    monkeypatch.setattr(session, "embedded", None)
    done = here(study, "stages.handover")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert collected(study, "two") == {"two": wanted["two"]}


def test_who_collects_imports_neither_torch_nor_ray_nor_mlflow(study: Path, wanted: dict):
    code = (
        "import sys; from stages import train; train.main('two'); "
        "print(sorted({'torch', 'ray', 'mlflow', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    assert here(study, "stages.train", "two").returncode == 0
    done = run_in(study, "python", "-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
