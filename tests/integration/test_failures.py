"""Kills and outages: what was committed stays, and the end is the same."""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import chdir
from functools import partial
from pathlib import Path

import psutil
import pytest

from infra.local import s3
from pipeline.storage import layout
from pipeline.storage.objects import Storage
from pipeline.training.history import history_digest, parse_history_csv
from tests.conftest import copy_study, outside, run_in
from tests.integration import damages
from tests.integration.trainings import (
    caught,
    here,
    key_of,
    lives,
    prepare,
    result_of,
    said_by,
    start,
    store_of,
    update_of,
    wait_for,
)

pytestmark = pytest.mark.integration
LONG, LONGER = 300, 3000  # updates


def longer(document: dict) -> None:
    row = document["models"]["plain-8"]
    document["models"] = {
        "plain-8": row,
        "resnet-8": {**document["models"]["resnet-8"], "report_every_updates": 2},
        "again": {**row, "seed": 5, "schedule": "schedules/long.yaml", "report_every_updates": 10},
        "longer": {
            **row,
            "seed": 6,
            "schedule": "schedules/longer.yaml",
            "report_every_updates": 25,
        },
        "endless": {**row, "seed": 7, "schedule": "schedules/endless.yaml"},
    }
    document["tune"] = {}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Path:
    folder = copy_study(tmp_path_factory.mktemp("failures") / "study", longer)
    for name, updates in (("long", LONG), ("longer", LONGER), ("endless", 10**6)):
        (folder / f"schedules/{name}.yaml").write_text(
            f"shape: cosine\nbase_lr: 0.05\ntotal_updates: {updates}\nwarmup: null\n"
        )
    prepare(folder)
    return folder


@pytest.mark.trial
@pytest.mark.parametrize("name, kills", [("again", 2), ("longer", 10)])
def test_a_training_killed_at_random_moments_ends_with_the_same_bits(
    study: Path, storage: Storage, name: str, kills: int
):
    moments = random.Random(time.time_ns())  # other moments in each run: none may matter
    store, train = store_of(study, name), ("python", "-m", "stages.train", name)
    for kill in range(kills):
        before = update_of(store)
        process = start(study, *train)
        if kill % 3 != 1:  # in its updates or while it writes; else anywhere, its start included
            wait_for(lambda seen=before: update_of(store) > seen)
            time.sleep(moments.uniform(0, 0.15))
        else:
            time.sleep(moments.uniform(0, 3.5))
        process.kill()
        process.wait()
    assert update_of(store) > 0
    assert not (study / f"runs/{name}/model.json").exists()
    resumed = start(study, *train)
    output = said_by(resumed)
    assert resumed.returncode == 0, output
    assert f"{name}: resumed at update" in output
    disturbed = result_of(study, name)
    store.clear()
    done = run_in(study, *train)
    assert done.returncode == 0, done.stderr
    assert "resumed" not in done.stdout
    assert result_of(study, name) == disturbed


def train_afresh(study: Path) -> subprocess.Popen[str]:
    store_of(study, "again").clear()
    (study / "runs/again/model.json").unlink(missing_ok=True)
    return start(study, "python", "-m", "stages.train", "again")


def test_a_stage_dies_with_dvc_and_the_next_goes_on(study: Path, storage: Storage):
    store = store_of(study, "again")

    def begin() -> subprocess.Popen[str]:
        store.clear()  # dash keeps standing between DVC and a stage
        return start(study, "dvc", "repro", "-f", "-s", "train@again", SHELL="/bin/sh")

    dvc = caught(begin, lambda: 0 < update_of(store) < LONG)
    dvc.is_killed()
    wait_for(lambda: not any(map(lives, dvc.tree)))
    done = run_in(study, "dvc", "repro", "-s", "train@again")
    assert done.returncode == 0, done.stderr
    assert "resumed at update" in done.stdout


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.trial)])
def test_never_a_wrong_result_whatever_is_damaged_on_s3(study: Path, storage: Storage, count: int):
    """Two objects of a finished training are damaged, and it is collected: 200 times in the trial."""
    first = here(study, "stages.train", "resnet-8")
    assert first.returncode == 0, first.stderr
    sha256, digest = result_of(study, "resnet-8")
    with chdir(study):
        found = damages.collected("resnet-8", count)
    assert len(found) == count
    for one in found:
        assert one["there"] == (one["error"] is None), one
        if one["there"]:
            assert one["sha256"] == sha256, one
            assert history_digest(parse_history_csv(one["history"])) == digest, one
            # what was not there any more is told: collected as it was, or gone on with from before; where
            # nothing says that there ever was a training, it begins
            told = "already trained" in one["said"] or "resumed at update" in one["said"]
            assert told or one["damages"] == ["delete manifests"] * 2, one
        else:
            assert "make again RUN=" in one["error"], one
    assert any("resumed at update" in one["said"] for one in found)
    assert any("already trained" in one["said"] for one in found)


STALE = """
import sys
from infra.local import s3
from pipeline import params, paths
from pipeline.data import prepared
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
study, storage = params.load(), s3.connect()
wanted = Wanted(study, prepared.look(paths.ARRAYS).digest, storage, place_of(study, storage))
print([training.name for training in wanted.stale(sys.argv[1:])])
"""


def test_what_other_code_has_begun_is_not_lost_unasked(study: Path, storage: Storage):
    store, key, train = store_of(study, "again"), key_of(study, "again"), "stages.train"
    caught(partial(train_afresh, study), lambda: 0 < update_of(store) < LONG).is_killed()
    source = study / "pipeline/training/loop.py"
    before = source.read_text()
    source.write_text(f"{before}OTHER = 1\n")
    try:
        refused = run_in(study, "python", "-m", train, "again")
        assert refused.returncode == 2, refused.stdout
        assert f"`STUDY_CONTINUE=again={key} dvc repro` goes on" in refused.stderr
        assert f"make forget RUN={key}" in refused.stderr
        goes_on = run_in(study, "python", "-m", train, "again", STUDY_CONTINUE=f"again={key}")
        assert "resumed at update" in goes_on.stdout, goes_on.stderr
        assert json.loads((study / "runs/again/model.json").read_text())["run_key_overridden"]
        # and the next `dvc repro` does not train it under the key of the other code
        assert run_in(study, "python", "-c", STALE, "again").stdout == "[]\n"
    finally:
        source.write_text(before)
    # a colleague's `make again` is not this clone's
    layout.Instances(storage, layout.TRAININGS, key).begin("a colleague's")
    assert run_in(study, "python", "-c", STALE, "again").stdout == "[]\n"
    forgotten = run_in(study, "python", "-m", "pipeline.commands.forget", key)
    assert "objects deleted" in forgotten.stdout, forgotten.stderr
    assert store.facts() is None


def test_ctrl_c_ends_the_whole_study_and_not_one_stage_of_it(study: Path, storage: Storage):
    """A terminal sends it to make, DVC and the stage."""
    store = store_of(study, "endless")
    store.clear()
    process = start(study, "make", "study", in_terminal=True)
    wait_for(lambda: update_of(store) > 0)
    tree = psutil.Process(process.pid).children(recursive=True)
    (study / ".dvc/tmp/rwlock").write_text("")  # as if DVC is about to write it
    os.killpg(process.pid, signal.SIGINT)
    output = said_by(process)
    assert "interrupted: `make study` goes on from the last checkpoints" in output
    assert "Running stage 'train@" not in output
    assert "Traceback" not in output
    assert process.returncode != 0
    wait_for(lambda: not any(map(lives, tree)))
    again = run_in(study, "dvc", "repro", "check")
    assert again.returncode == 0, again.stderr  # it left no lock, nor half a file


def test_two_trainers_of_one_key_are_refused(study: Path, storage: Storage):
    store = store_of(study, "endless")
    store.clear()
    first = start(study, "python", "-m", "stages.train", "endless")
    try:
        wait_for(lambda: update_of(store) > 0)
        # it holds its lock still, and leaves the cores to the second
        psutil.Process(first.pid).suspend()
        second = run_in(study, "python", "-m", "stages.train", "endless")
        assert second.returncode == 2
        assert "already under way in another process" in second.stderr
    finally:
        psutil.Process(first.pid).resume()
        first.send_signal(signal.SIGINT)
        said_by(first)
    assert first.returncode == 130


@pytest.mark.parametrize("how", ["dies", "is stopped"])
def test_a_training_outlives_its_server(study: Path, storage: Storage, how: str):
    """One that dies is started again by the training; one that was stopped is waited for."""
    store = store_of(study, "again")
    training = caught(partial(train_afresh, study), lambda: 0 < update_of(store) < LONG)
    before = update_of(store)
    if how == "dies":
        psutil.Process(s3.running().pid).kill()
        training.goes_on()
    else:
        s3.stop()
        training.goes_on()
        assert any("retrying for 60 s" in line for line in training.process.stdout)
        s3.ensure_running()
    output = said_by(training.process)
    assert training.process.returncode == 0, output
    assert update_of(store) == LONG > before


def test_a_full_disk_is_told_and_leaves_nothing_half_written(study: Path, tmp_path: Path):
    """`ulimit -f` makes writes fail as a full disk does: at a size, in the middle of a file."""
    kept = (study / "data/arrays.safetensors").read_bytes()
    limit = "trap '' XFSZ; ulimit -f 16; exec .venv/bin/python -B -m stages.prepare"
    done = subprocess.run(
        ["bash", "-c", limit], cwd=study, capture_output=True, text=True, check=False,
        env=outside(),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error:" in done.stderr
    assert (study / "data/arrays.safetensors").read_bytes() == kept
    assert not list((study / "data").glob("*.part"))
