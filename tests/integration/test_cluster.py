"""A real Ray cluster on loopback: submit, leave, come back, lose processes."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from filelock import FileLock

from infra.local import cluster as local_cluster
from infra.local import s3
from infra.local.make_study import mend_what_dvc_left
from pipeline.cluster.client import Cluster, Job
from pipeline.commands.jobs import _stale as stale_of
from pipeline.params import load
from pipeline.storage.layout import project
from pipeline.storage.objects import Storage
from pipeline.training.history import parse_history_csv
from tests.conftest import changed_params, copy_study, run_in, small_search
from tests.integration.trainings import (
    key_of,
    result_of,
    said_by,
    start,
    store_of,
    update_of,
    wait_for,
)
from tests.photographs import images, small_study

pytestmark = pytest.mark.integration
UPDATES, EVERY, LONGER = 200, 20, 4000


def networks(document: dict) -> None:
    plain, residual = document["models"]["plain-8"], document["models"]["resnet-8"]
    long = {"schedule": "schedules/long.yaml", "report_every_updates": EVERY}
    document["models"] = {
        "one": {**plain, **long},
        "two": {**residual, **long, "seed": 2},
        "three": {**residual, **long, "seed": 3},
        "four": {**residual, **long, "seed": 4},
        "longer": {**plain, **long, "schedule": "schedules/longer.yaml", "seed": 5},
    }
    document["tune"] = {}
    document["ensemble"] = {"members": ["one", "two"]}


@pytest.fixture(scope="module")
def address(own_state: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_RAY_PORT", str(s3.free_port()))
        patch.setenv("STUDY_CACHE_DIR", str(own_state / "cache"))
        # as in a shell whose RAY_ADDRESS names another cluster, or one that is down
        patch.delenv("RAY_AUTH_TOKEN_PATH")
        yield local_cluster.up()
        local_cluster.down()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, address: str) -> Path:
    folder = copy_study(tmp_path_factory.mktemp("cluster") / "study", networks)
    for name, updates in (("long", UPDATES), ("longer", LONGER), ("endless", 10**6)):
        (folder / f"schedules/{name}.yaml").write_text(
            f"shape: cosine\nbase_lr: 0.05\ntotal_updates: {updates}\nwarmup: null\n"
        )
    for command in (("python", "-m", "infra.local", "up"), ("dvc", "repro", "prepare")):
        assert run_in(folder, *command).returncode == 0
    return folder


def trainings(address: str) -> list[Job]:
    return [job for job in Cluster(address, "").jobs() if job.facts.get("kind") == "training"]


def test_dvc_shows_handover_before_the_trainings_and_not_for_one(study: Path):
    whole = run_in(study, "dvc", "repro", "--dry").stdout
    assert whole.index("'handover'") < whole.index("'train@")
    one = run_in(study, "dvc", "repro", "--dry", "train@one").stdout
    assert "'train@one'" in one and "'handover'" not in one


def test_a_killed_dvc_repro_is_joined_again_and_nothing_is_trained_twice(
    study: Path, address: str, storage: Storage
):
    stores = {name: store_of(study, name) for name in ("one", "two")}
    rows = [f"train@{name}" for name in stores]

    def some(document: dict) -> None:
        document["models"] = {name: document["models"][name] for name in stores}

    with changed_params(study, some):
        process = start(study, "dvc", "repro", "handover", *rows, RAY_ADDRESS=address)
        wait_for(lambda: any(update_of(store) > 0 for store in stores.values()))
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        said_by(process)
        wait_for(lambda: not any(child.is_running() for child in children))
        before = {name: update_of(store) for name, store in stores.items()}
        assert any(update > 0 for update in before.values()), before
        assert len(trainings(address)) == 2

        # as `make study` does: killed at that moment, DVC has written half of a file
        with chdir(study):
            mend_what_dvc_left()
        again = run_in(study, "dvc", "repro", "handover", *rows, RAY_ADDRESS=address)
    assert again.returncode == 0, again.stdout + again.stderr
    jobs = trainings(address)
    assert sorted(job.facts["row"] for job in jobs) == ["one", "two"], jobs
    assert {job.attempt for job in jobs} == {1}
    for job in jobs:
        assert "resumed" not in Cluster(address, "").logs(job.name)
    for name in stores:
        history = parse_history_csv((study / f"runs/{name}/history.csv").read_text())
        assert [record.update for record in history] == list(range(EVERY, UPDATES + 1, EVERY))


@pytest.mark.trial
def test_a_search_is_a_job_that_a_second_command_collects(study: Path, address: str):
    with changed_params(study, lambda document: document.update(tune={"any": small_search("one")})):
        for said in ("chosen from 2 trials", "already searched"):
            done = run_in(study, "python", "-m", "stages.tune", "any", RAY_ADDRESS=address)
            assert done.returncode == 0, done.stdout + done.stderr
            assert said in done.stdout
    kinds = [job.facts.get("kind") for job in Cluster(address, "").jobs()]
    assert kinds.count("search") == 1


def workers() -> list[psutil.Process]:
    found = []
    for leader in local_cluster.nodes():
        for child in leader.children(recursive=True):
            try:
                if re.search("RayTrainWorker|LoneWorker", " ".join(child.cmdline())):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
    return found


def undisturbed(study: Path, address: str, name: str) -> tuple[str, str]:
    """Returns what a row ends with if nothing happens to it, trained on the cluster if it was not yet."""
    if not (study / f"runs/{name}/model.json").exists():
        done = run_in(study, "python", "-m", "stages.train", name, RAY_ADDRESS=address)
        assert done.returncode == 0, done.stderr
    return result_of(study, name)


@contextmanager
def suspended() -> Iterator[None]:
    """While the context lasts, what trains takes no processor time."""
    stopped = workers()
    for worker in stopped:
        with suppress(psutil.NoSuchProcess):  # one whose job was stopped
            worker.suspend()
    try:
        yield
    finally:
        for worker in stopped:
            with suppress(psutil.NoSuchProcess):
                worker.resume()


def train_afresh(study: Path, address: str, name: str) -> subprocess.Popen[str]:
    store_of(study, name).clear()
    return start(study, "python", "-m", "stages.train", name, RAY_ADDRESS=address)


@pytest.mark.parametrize(
    "name, kills", [("one", 1), pytest.param("longer", 10, marks=pytest.mark.trial)]
)
def test_a_worker_killed_at_random_moments_ends_with_the_same_bits(
    study: Path, address: str, storage: Storage, name: str, kills: int
):
    wanted, store = undisturbed(study, address, name), store_of(study, name)
    process = train_afresh(study, address, name)
    killed_at = 0
    for _ in range(kills):
        wait_for(lambda last=killed_at: update_of(store) > last)
        time.sleep(random.uniform(0, 0.3))
        for worker in workers():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        killed_at = update_of(store)
    output = said_by(process)
    assert process.returncode == 0, output
    assert output.count("going on from ") == kills
    assert result_of(study, name) == wanted


@pytest.mark.trial
def test_a_killed_driver_is_started_again(study: Path, address: str, storage: Storage):
    wanted, store = undisturbed(study, address, "two"), store_of(study, "two")
    process = train_afresh(study, address, "two")
    wait_for(lambda: update_of(store) > 0)
    drivers = [
        child
        for child in local_cluster.nodes()[0].children(recursive=True)
        if child.cmdline()[1:] == ["-m", "pipeline.cluster.driver"]
    ]
    assert len(drivers) == 1
    drivers[0].kill()
    output = said_by(process)
    assert process.returncode == 0, output
    assert "the driver was killed (status 137): starting it again" in output
    assert result_of(study, "two") == wanted
    assert json.loads((study / "runs/two/model.json").read_text())["workers"] == 1


def fails(study: Path, name: str, **environment: str) -> str:
    """Returns what `train` says when it fails with an error of ours."""
    done = run_in(study, "python", "-m", "stages.train", name, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_cluster_that_cannot_be_used_is_told(study: Path, address: str):
    with changed_params(study, lambda document: document["models"]["four"].update(seed=44)):
        assert "wanted the address of the cluster's Jobs API" in fails(
            study, "four", RAY_ADDRESS="ray://127.0.0.1:10001"
        )
        wrong = {"RAY_AUTH_TOKEN": "not-this-one" * 4}
        nowhere = "http://127.0.0.1:9"
        assert "cannot be reached" in fails(study, "four", RAY_ADDRESS=nowhere, **wrong)
        assert "set RAY_AUTH_TOKEN" in fails(study, "four", RAY_ADDRESS=nowhere)
        # of a cluster that is not the local one, whose token is known, the user's is taken
        elsewhere = address.replace("127.0.0.1", "localhost")
        said = fails(study, "four", RAY_ADDRESS=elsewhere, **wrong)
        assert "refuses the token" in said
        assert "not-this-one" not in said
        (other := study / "torch-0.0.1.dist-info").mkdir()  # found first where `python -m` is run
        try:
            (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
            said = fails(study, "four", RAY_ADDRESS=address)
        finally:
            shutil.rmtree(other)
        assert "and 0.0.1 here" in said
    assert "four" not in [
        job.facts["row"] for job in trainings(address) if job.key == key_of(study, "four", seed=44)
    ]


def test_what_no_node_can_ever_give_is_refused_before_submitting(study: Path, address: str):
    def greedy(document: dict) -> None:
        document["models"]["four"]["seed"] = 45
        document["execution"]["worker_cpus"] = 64

    with changed_params(study, greedy):
        said = fails(study, "four", RAY_ADDRESS=address)
    assert "a worker takes 64 CPU and 0 GPU" in said
    assert "execution.worker_cpus" in said
    assert key_of(study, "four", seed=45) not in {job.key for job in trainings(address)}


def test_code_that_is_too_large_or_does_not_import_is_told(study: Path, address: str):
    with changed_params(study, lambda document: document["models"]["four"].update(seed=46)):
        large = study / "pipeline/weights.bin"
        large.write_bytes(b"0" * 11_000_000)
        try:
            assert "weights.bin" in fails(study, "four", RAY_ADDRESS=address)
        finally:
            large.unlink()
        driver = study / "pipeline/cluster/driver.py"
        source = driver.read_text()
        driver.write_text(f"import not_installed_there\n{source}")
        try:
            said = fails(study, "four", RAY_ADDRESS=address)
        finally:
            driver.write_text(source)
    assert "No module named 'not_installed_there'" in said
    assert "`dvc repro` makes the next attempt" in said


@pytest.mark.trial
@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made by mounting a small one")
def test_a_full_disk_on_a_node_is_told(study: Path, address: str):
    cache = Path(os.environ["STUDY_CACHE_DIR"])
    cache.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(cache)], check=True)
    try:
        with changed_params(study, lambda document: document["models"]["four"].update(seed=47)):
            said = fails(study, "four", RAY_ADDRESS=address)
    finally:
        subprocess.run(["umount", str(cache)], check=True)
    assert "No space left on device: free space there" in said
    assert socket.gethostname() in said


@pytest.mark.trial
def test_s3_gone_for_a_while_in_mid_training_loses_nothing(
    study: Path, address: str, storage: Storage
):
    wanted, store = undisturbed(study, address, "one"), store_of(study, "one")
    process = train_afresh(study, address, "one")
    wait_for(lambda: update_of(store) > 0)
    name = next(job.name for job in trainings(address) if job.is_alive)
    with FileLock(s3.state_dir() / "lock"):  # who connects anew would start it again
        psutil.Process(s3.running().pid).kill()
        # the training itself has met the outage, however slow it is
        wait_for(lambda: "retrying for 1800 s" in Cluster(address, "").logs(name))
    s3.ensure_running()
    output = said_by(process)
    assert process.returncode == 0, output
    assert "resumed" not in output
    assert result_of(study, "one") == wanted


@pytest.mark.trial
def test_a_row_asked_for_again_is_trained_afresh_by_a_job(
    study: Path, address: str, storage: Storage
):
    wanted = undisturbed(study, address, "one")
    before = store_of(study, "one").instance
    again = ("python", "-m", "pipeline.commands.again", "one")
    done = run_in(study, *again, RAY_ADDRESS=address)
    assert f"one: instance {before.number + 1} of" in done.stdout, done.stdout + done.stderr
    assert "resumed" not in done.stdout
    assert result_of(study, "one") == wanted  # the same bits, from the first update on
    assert json.loads((study / "runs/one/model.json").read_text())["instance"] == before.number + 1
    assert before.names()  # what was there stays


def test_two_who_hand_over_at_once_submit_each_training_once_ctrl_c_detaches_and_stop_stops(
    study: Path, address: str
):
    def others(document: dict) -> None:
        document["models"] = {name: document["models"][name] for name in ("one", "two")}
        for row in document["models"].values():
            row |= {"seed": row["seed"] + 100, "schedule": "schedules/endless.yaml"}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return run_in(study, "python", "-m", *words, RAY_ADDRESS=address)

    with changed_params(study, others):
        both = [
            start(study, "python", "-m", "pipeline.commands.submit", RAY_ADDRESS=address)
            for _ in range(2)
        ]
        said = [said_by(process) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        keys = {key_of(study, name) for name in ("one", "two")}
        jobs = [job for job in trainings(address) if job.key in keys]
        assert sorted(job.name for job in jobs) == sorted(f"{project()}-{key}-1" for key in keys)

        store = store_of(study, "one")
        attached = start(study, "python", "-m", "stages.train", "one", RAY_ADDRESS=address)
        wait_for(lambda: update_of(store) > 0)
        with suspended():
            assert attached.stdout is not None
            assert next(line for line in attached.stdout if line.startswith("one: job "))
            attached.send_signal(signal.SIGINT)
            output = said_by(attached)
            assert attached.returncode == 130, output
            assert "detached: one goes on as job" in output
            assert "make stop RUN=" in output
            refused = command("pipeline.commands.again", "one")
            assert refused.returncode == 2, refused.stdout
            assert re.search(r"the job \S+ is at work on it: `make stop RUN=", refused.stderr)
            listed = command("pipeline.commands.jobs").stdout
            assert "one" in listed and "stale" not in listed
            stopped = command("pipeline.commands.jobs", "stop", "one")
            assert "stopped" in stopped.stdout, stopped.stdout + stopped.stderr
            assert {job.attempt for job in trainings(address) if job.key in keys} == {1}
    with suspended():
        (alive,) = (job for job in trainings(address) if job.is_alive and job.key in keys)
        continued = replace(alive, facts={**alive.facts, "continued": "yes"})
        with chdir(study):
            of_the_study = load()
            assert stale_of(of_the_study, [alive]) == {alive.name}
            assert stale_of(of_the_study, [continued]) == set()  # somebody chose it
        assert "1 stale: `make stop RUN=stale` stops it" in command("pipeline.commands.jobs").stdout
    stopped = command("pipeline.commands.jobs", "stop", "stale")
    assert stopped.stdout.count("stopped") == 1, stopped.stdout + stopped.stderr
    assert command("pipeline.commands.jobs", "stop", "stale").returncode == 2


@pytest.mark.trial
def test_after_the_last_allowed_failure_the_node_is_named(study: Path, address: str):
    with changed_params(study, lambda document: document["models"]["four"].update(seed=49)):
        process = start(study, "python", "-m", "stages.train", "four", RAY_ADDRESS=address)
        known: set[int] = set()
        while process.poll() is None:
            for worker in workers():
                if worker.pid not in known:
                    known.add(worker.pid)
                    worker.kill()
            time.sleep(0.1)
        output = said_by(process)
    assert process.returncode == 2, output
    assert len(known) == 4
    assert "four: failed 4 times at 0 without progress between" in output
    assert "127.0.0.1" in output[output.index("failed 4 times") :], output


def test_no_key_of_s3_is_in_rays_logs_or_jobs(address: str):
    secrets = [part for part in s3.credentials_file().read_text().split() if len(part) > 15]
    folder = local_cluster.folder()
    logs = [path for path in folder.rglob("*") if path.is_file() and "/logs/" in str(path)]
    assert len(logs) > 20
    for path in logs:
        text = path.read_text(errors="replace")
        assert not any(secret in text for secret in secrets if not secret.startswith("aws_")), path
    told = json.dumps([str(details) for details in Cluster(address, "")._client.list_jobs()])
    assert not any(secret in told for secret in secrets if not secret.startswith("aws_"))


def test_who_has_no_token_submits_nothing(address: str):
    before = len(Cluster(address, "")._client.list_jobs())
    job = {"entrypoint": "touch /tmp/owned"}
    for headers in ({}, {"Authorization": "Bearer guessed"}):
        answer = requests.post(f"{address}/api/jobs/", json=job, headers=headers)
        assert answer.status_code in (401, 403)
        assert requests.get(f"{address}/api/jobs/", headers=headers).status_code in (401, 403)
    assert len(Cluster(address, "")._client.list_jobs()) == before


@pytest.mark.trial
def test_an_elastic_training_goes_on_with_the_workers_that_are_left(
    study: Path, address: str, storage: Storage
):
    def elastic(document: dict) -> None:
        row = document["models"]["four"]
        row |= {"seed": 48, "workers": {"elastic": True, "low": 1, "high": 2}}
        row |= {"schedule": "schedules/short.yaml", "report_every_updates": 20}

    (study / "schedules/short.yaml").write_text(
        "shape: cosine\nbase_lr: 0.05\ntotal_updates: 400\nwarmup: null\n"
    )
    with changed_params(study, elastic):
        store = store_of(study, "four")
        process = start(study, "python", "-m", "stages.train", "four", RAY_ADDRESS=address)
        wait_for(lambda: update_of(store) > 0)
        facts = store.facts()
        assert facts is not None and facts.workers == 2
        leader = local_cluster.nodes()[-1]
        children = leader.children(recursive=True)
        leader.kill()  # nothing starts this node again
        for child in children:
            child.kill()
        output = said_by(process)
    assert process.returncode == 0, output
    assert "going on from " in output
    facts = json.loads((study / "runs/four/model.json").read_text())
    assert facts["workers"] == 1
    assert facts["updates"] == 400


@pytest.mark.trial
def test_photographs_are_packed_and_evaluated_by_the_nodes(
    tmp_path: Path, address: str, storage: Storage
):
    for name, content in images(60, 20).items():
        storage.put(f"photographs/{name}", content)
    archive = f"s3://{storage.bucket}/photographs/"
    folder = copy_study(tmp_path / "study", lambda document: small_study(document, archive, None))
    schedule = "shape: cosine\nbase_lr: 0.05\ntotal_updates: 8\nwarmup: null\n"
    (folder / "schedules/long.yaml").write_text(schedule)
    there = {"RAY_ADDRESS": address, "STUDY_CACHE_DIR": str(tmp_path)}
    for target, where in (("prepare", there), ("train@plain-18", {}), ("evaluate@plain-18", there)):
        done = run_in(folder, "dvc", "repro", target, **where)
        assert done.returncode == 0, done.stdout + done.stderr
    kinds = [job.facts.get("kind") for job in Cluster(address, "").jobs()]
    assert kinds.count("packing") == kinds.count("evaluation") == 1
    facts = json.loads((folder / "data/digest.json").read_text())
    assert facts["images"] == {"train": 90, "val": 30, "test": 40}

    scores = folder / "scores/plain-18"
    with np.load(scores / "predictions.npz") as file:
        of_cluster = {name: file[name] for name in file}
    assert {"test_ten_crops_logits", "test_scales_logits"} <= of_cluster.keys()
    here = run_in(folder, "python", "-m", "stages.evaluate", "plain-18")
    assert here.returncode == 0, here.stderr
    with np.load(scores / "predictions.npz") as file:
        for name, values in of_cluster.items():
            assert values == pytest.approx(file[name], abs=1e-3), name
    again = run_in(folder, "python", "-m", "stages.evaluate", "plain-18", **there)
    assert again.returncode == 0, again.stderr
    kinds = [job.facts.get("kind") for job in Cluster(address, "").jobs()]
    assert kinds.count("evaluation") == 1  # its result was on S3
