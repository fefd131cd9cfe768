"""A Ray cluster on this machine for trying the real thing: a head and two workers, on loopback.

Each node is a process group of its own with a share of the cores, and is started again when it dies,
as a node of a real cluster is. Tokens are on; the nodes get the keys of S3 by their environment.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from infra.local import s3
from pipeline.cluster import SETTINGS
from pipeline.cluster.jobs import Cluster, Unreachable
from pipeline.cluster.session import cores
from pipeline.errors import ResourceError

PORT = "STUDY_RAY_PORT"
DEFAULT_PORT = 8265  # Ray's own for the Jobs API and the dashboard
WORKERS = 2
START_TIMEOUT_S = 120.0
OBJECT_STORE_BYTES = 200_000_000  # nothing of ours goes through it
RESTART_AFTER_S = 2
HEALTH = {  # a lost node is noticed in seconds; Ray's own defaults take half a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
QUIET = {  # three nodes' housekeeping must leave two cores to the trainings
    "REPORTER_UPDATE_INTERVAL_MS": "15000",
    "RAY_task_events_report_interval_ms": "0",
}


def up() -> str:
    """Starts the cluster if it is not up; returns the address of its Jobs API."""
    with _lock():
        if found := running():
            return found
        _end_all()
        return _start()


def down() -> bool:
    """Stops the cluster; tells whether there was one."""
    with _lock():
        return _end_all()


def running() -> str | None:
    """Returns the address of the Jobs API where the cluster is up."""
    return _facts()["address"] if len(nodes()) == 1 + WORKERS else None


def nodes() -> list[psutil.Process]:
    """Returns the leaders of the nodes' process groups that live: the head's first."""
    found = (s3.process_of(pid, started) for pid, started in _facts()["nodes"])
    return [process for process in found if process is not None]


def _file() -> Path:
    return s3.state_dir() / "cluster.json"


def _facts() -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(_file().read_text())
    except (FileNotFoundError, ValueError):
        return {"nodes": []}
    return facts


def _lock() -> FileLock:
    return FileLock(s3.state_dir() / "cluster.lock", timeout=START_TIMEOUT_S)


def _end_all() -> bool:
    """Ends each node: first what would start it again, then all that it started."""
    leaders = nodes()
    everyone = [child for leader in leaders for child in leader.children(recursive=True)]
    for leader in leaders:
        leader.kill()
    for child in everyone:
        if child.is_running():
            child.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([*leaders, *everyone], timeout=5)
    for child in alive:
        child.kill()
    if folder := _facts().get("folder"):
        shutil.rmtree(folder, ignore_errors=True)
    _file().unlink(missing_ok=True)
    return bool(leaders)


def _start() -> str:
    jobs = s3.port_from(PORT) or DEFAULT_PORT
    if s3.answers(jobs):
        raise ResourceError(f"port {jobs} is in use: set {PORT} to a free one")
    s3.connect()  # the nodes inherit its address and keys
    address, gcs = f"http://127.0.0.1:{jobs}", s3.free_port()
    folder = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets need a short path
    environment = _environment()
    ray = str(Path(sys.executable).parent / "ray")
    subprocess.run(
        [ray, "get-auth-token", "--generate"], check=True, capture_output=True, env=environment
    )
    leaders: list[psutil.Process] = []

    def node(*arguments: str) -> None:
        command = shlex.join(
            [sys.executable, "-m", "infra.local.node", "start", *arguments,
             "--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECT_STORE_BYTES}",
             # of its own: nodes that shared it would delete each other's copies of the code
             f"--temp-dir={folder}/{len(leaders)}", "--disable-usage-stats", "--block"]
        )  # fmt: skip
        again = f"while :; do {command}; sleep {RESTART_AFTER_S}; done"
        with (s3.state_dir() / "cluster.log").open("ab") as log:
            started = subprocess.Popen(
                ["bash", "-c", again], env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd=Path(__file__).parents[2], start_new_session=True,
            )  # fmt: skip
        leaders.append(psutil.Process(started.pid))
        known = [[leader.pid, leader.create_time()] for leader in leaders]
        _file().write_text(json.dumps({"address": address, "nodes": known, "folder": folder}))

    node(
        "--head", f"--port={gcs}", "--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={jobs}",
    )  # fmt: skip
    _wait(lambda: alive(address) == 1, "its head")
    for number in range(WORKERS):
        share = [f"--num-cpus={max(1, cores() // WORKERS)}"]
        node(f"--address=127.0.0.1:{gcs}", *share, *(["--num-gpus=0"] if number else []))
    _wait(lambda: alive(address) == 1 + WORKERS, "its workers")
    return address


def alive(address: str) -> int:
    """Returns how many nodes of a cluster live; 0 where it does not answer."""
    try:
        return len(Cluster(address, "").shapes())
    except Unreachable:
        return 0


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**SETTINGS, **HEALTH, **QUIET, **os.environ, "PATH": path}
    environment.pop("RAY_ADDRESS", None)
    environment.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)  # infra.local.node sets it
    environment.pop("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", None)
    return environment


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline or len(nodes()) != len(_facts()["nodes"]):
            _end_all()
            log = s3.state_dir() / "cluster.log"
            last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise ResourceError(f"the local Ray cluster did not start {what}: {last} (log: {log})")
        time.sleep(0.3)
