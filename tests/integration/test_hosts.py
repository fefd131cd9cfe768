"""Several hosts, each a network namespace with its own address: nodes are lost and others join."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from infra.local import s3
from infra.local.cluster import alive
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from tests import pace
from tests.conftest import copy_study
from tests.integration import hosts as network
from tests.integration.trainings import result_of, said_by, start, store_of, update_of, wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.trial,
    pytest.mark.skipif(network.possible() is not None, reason=str(network.possible())),
]
UPDATES = 800
HEAD, ONE, TWO, THREE = 1, 2, 3, 4
BRIDGE_S3 = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "STUDY_BUCKET")
TRAIN = ("python", "-m", "stages.train", "both")


def one_network(document: dict) -> None:
    row = document["models"]["resnet-8"]
    both = {**row, "workers": 2, "schedule": "schedules/long.yaml", "report_every_updates": 25}
    document["models"] = {"both": both, "other": row}
    document["tune"]["resnet-8"]["model"] = "both"
    document["ensemble"] = {"members": ["both", "other"]}


@pytest.fixture(scope="module")
def hosts() -> Iterator[network.Hosts]:
    found = network.Hosts()
    yield found
    found.close()
    shutil.rmtree(found.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def storage(hosts: network.Hosts, own_state: Path) -> Iterator[Storage]:
    """An S3 server on the bridge, where every host reaches it."""
    before = {name: os.environ.get(name) for name in BRIDGE_S3}
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
    with socket.socket() as probe:
        wait_for(
            lambda: probe.connect_ex((network.OUTSIDE, 9311)) == 0, "the S3 server on the bridge"
        )
    yield s3.connect()
    server.kill()
    server.wait(pace.hangs_after_s(10))
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
    done = begin(folder, "dvc", "repro", "prepare")
    assert done.wait(pace.hangs_after_s(120)) == 0
    return folder


def begin(study: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a command that reaches S3 over the bridge."""
    return start(study, *command, **{name: os.environ[name] for name in BRIDGE_S3}, **environment)


@pytest.fixture(scope="module")
def cluster(hosts: network.Hosts) -> Iterator[str]:
    """A head and two workers, each on a host of its own; yields the head's address, whose token is a user's."""
    head = hosts.add(HEAD)
    for number in (ONE, TWO, THREE):
        hosts.add(number)
    hosts.start_node(HEAD, None, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", hosts.token)
        patch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
        AuthenticationTokenLoader.instance().reset_cache()  # of another cluster that a test had
        wait_for(lambda: alive(jobs_api(head)) == 1, "the head")
        for number in (ONE, TWO):
            hosts.start_node(number, head, 1)
        wait_for(lambda: alive(jobs_api(head)) == 3, "the workers")
        yield head
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture(scope="module")
def store(study: Path, storage: Storage) -> CheckpointStore:
    return store_of(study, "both")


@pytest.fixture(scope="module")
def undisturbed(study: Path, store: CheckpointStore) -> tuple[str, str]:
    """The result of two workers on this machine alone."""
    process = begin(study, *TRAIN)
    output = said_by(process)
    assert process.returncode == 0, output
    store.clear()
    return result_of(study, "both")


def jobs_api(head: str) -> str:
    return f"http://{head}:8265"


def test_a_host_is_lost_for_good_and_another_joins(
    hosts: network.Hosts,
    study: Path,
    store: CheckpointStore,
    undisturbed: tuple[str, str],
    cluster: str,
):
    process = begin(study, *TRAIN, RAY_ADDRESS=jobs_api(cluster), RAY_AUTH_TOKEN=hosts.token)
    wait_for(lambda: update_of(store) > 0, "the first checkpoint")
    hosts.cut(TWO)
    wait_for(lambda: alive(jobs_api(cluster)) == 2, "the loss is noticed")
    before = update_of(store)
    assert 0 < before < UPDATES
    hosts.start_node(THREE, cluster, 1)
    wait_for(lambda: alive(jobs_api(cluster)) == 3, "another host joins")
    seconds = wait_for(lambda: update_of(store) > before, "training goes on")
    output = said_by(process)
    assert process.returncode == 0, output
    assert "going on from " in output, output
    assert result_of(study, "both") == undisturbed
    print(f"went on {seconds:.0f} s after the host had joined")


def test_the_head_is_cut_off_for_a_while(
    hosts: network.Hosts,
    study: Path,
    store: CheckpointStore,
    undisturbed: tuple[str, str],
    cluster: str,
):
    store.clear()
    process = begin(study, *TRAIN, RAY_ADDRESS=jobs_api(cluster), RAY_AUTH_TOKEN=hosts.token)
    wait_for(lambda: update_of(store) > 0, "the first checkpoint")
    hosts.cut(HEAD)
    time.sleep(15)  # about as long as Ray takes to notice: with or without, the result is the same
    hosts.mend(HEAD)
    output = said_by(process)
    assert process.returncode == 0, output
    assert result_of(study, "both") == undisturbed
