"""Several hosts, each a network namespace with its own address: nodes are lost and others join."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local import s3
from infra.local.cluster import alive
from pipeline.data import arrays
from pipeline.params import load, row_of
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.s3 import Storage
from pipeline.training.identity import run_key
from pipeline.training.schedule import load_schedule
from pipeline.training.state import history_digest, parse_history_csv
from tests.conftest import AWS, copy_study
from tests.integration import hosts as network

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(network.possible() is not None, reason=str(network.possible())),
]
UPDATES = 800
HEAD, ONE, TWO, THREE = 1, 2, 3, 4


def one_network(document: dict) -> None:
    row = document["models"]["resnet-8"]
    both = {**row, "workers": 2, "schedule": "schedules/long.yaml", "report_every_updates": 25}
    document["models"] = {"both": both, "other": row}
    document["tune"]["model"] = "both"
    document["ensemble"] = {"members": ["both", "other"]}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 90) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def hosts() -> Iterator[network.Hosts]:
    found = network.Hosts()
    yield found
    found.close()
    shutil.rmtree(found.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def storage(hosts: network.Hosts, own_state: Path) -> Iterator[Storage]:
    """An S3 server on the bridge, where every host reaches it."""
    before = {name: os.environ.get(name) for name in (*AWS, "STUDY_BUCKET")}
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{network.OUTSIDE}:9311", "AWS_ACCESS_KEY_ID": "hosts",
        "AWS_SECRET_ACCESS_KEY": "of-the-tests", "STUDY_BUCKET": "hosts",
    }  # fmt: skip
    (own_state / "hosts-data").mkdir()
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent))
    assert rclone is not None
    server = subprocess.Popen(
        [rclone, "serve", "s3", "--addr", f"{network.OUTSIDE}:9311", "--config", "",
         "--vfs-cache-mode", "off", str(own_state / "hosts-data")],
        env={**os.environ, "RCLONE_AUTH_KEY": '"hosts,of-the-tests"'},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(1)
    yield s3.connect()
    server.kill()
    server.wait(10)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, storage: Storage) -> Path:
    folder = copy_study(tmp_path_factory.mktemp("hosts") / "study", one_network)
    (folder / "schedules/long.yaml").write_text(
        f"shape: cosine\nbase_lr: 0.05\ntotal_updates: {UPDATES}\nwarmup: null\n"
    )
    done = start(folder, None, "dvc", "repro", "prepare")
    assert done.wait(120) == 0
    return folder


def start(study: Path, head: str | None, *command: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PATH": f"{study / '.venv/bin'}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    if head is not None:
        environment["RAY_ADDRESS"] = f"http://{head}:8265"
    return subprocess.Popen(
        command, cwd=study, text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def result_of(study: Path) -> tuple[str, str]:
    folder = study / "runs/both"
    history = parse_history_csv((folder / "history.csv").read_text())
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(), history_digest(
        history
    )


@pytest.fixture(scope="module")
def cluster(hosts: network.Hosts) -> str:
    """A head and two workers, each on a host of its own; returns the head's address."""
    head = hosts.add(HEAD)
    for number in (ONE, TWO, THREE):
        hosts.add(number)
    hosts.start_node(HEAD, None, 0)
    wait_for(lambda: alive(jobs_api(head)) == 1, "the head")
    for number in (ONE, TWO):
        hosts.start_node(number, head, 1)
    wait_for(lambda: alive(jobs_api(head)) == 3, "the workers")
    return head


@pytest.fixture(scope="module")
def store(study: Path, storage: Storage) -> CheckpointStore:
    row = row_of(load(study / "params.yaml"), "both")
    digest = arrays.load(study / "data/arrays.safetensors").digest
    key, _ = run_key("both", row, load_schedule(study / row.schedule), digest)
    return CheckpointStore(storage, key)


@pytest.fixture(scope="module")
def undisturbed(study: Path, store: CheckpointStore) -> tuple[str, str]:
    """The result of two workers on this machine alone."""
    process = start(study, None, "python", "-m", "stages.train", "both")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    store.clear()
    return result_of(study)


def jobs_api(head: str) -> str:
    return f"http://{head}:8265"


def update_of(store: CheckpointStore) -> int:
    facts = store.facts()
    return facts["update"] if facts else 0


def test_a_host_is_lost_for_good_and_another_joins(
    hosts: network.Hosts,
    study: Path,
    store: CheckpointStore,
    undisturbed: tuple[str, str],
    cluster: str,
):
    process = start(study, cluster, "python", "-m", "stages.train", "both")
    wait_for(lambda: update_of(store) > 0, "the first checkpoint")
    hosts.cut(TWO)
    wait_for(lambda: alive(jobs_api(cluster)) == 2, "the loss is noticed", 60)
    before = update_of(store)
    assert 0 < before < UPDATES
    hosts.start_node(THREE, cluster, 1)
    wait_for(lambda: alive(jobs_api(cluster)) == 3, "another host joins")
    seconds = wait_for(lambda: update_of(store) > before, "training goes on", 60)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "going on from update" in output, output
    assert result_of(study) == undisturbed
    print(f"went on {seconds:.0f} s after the host had joined")


def test_the_head_is_cut_off_for_a_while(
    hosts: network.Hosts,
    study: Path,
    store: CheckpointStore,
    undisturbed: tuple[str, str],
    cluster: str,
):
    store.clear()
    process = start(study, cluster, "python", "-m", "stages.train", "both")
    wait_for(lambda: update_of(store) > 0, "the first checkpoint")
    hosts.cut(HEAD)
    time.sleep(15)
    hosts.mend(HEAD)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    assert "going on from update" in output, output
    assert result_of(study) == undisturbed
