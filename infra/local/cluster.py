"""A Ray cluster on this machine, to try the real thing: a head and two workers, on loopback.

Each node is a process group of its own with a share of the cores, and is restarted when it dies, like a
node of a real cluster. Tokens are on; the nodes get the S3 keys through their environment.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock

from infra.local import s3
from pipeline.cluster import SETTINGS
from pipeline.cluster.client import Cluster, Unreachable
from pipeline.errors import ResourceError
from pipeline.files import short_folder
from pipeline.machine import cores
from pipeline.storage.bucket import EMBEDDED, Bucket

PORT = "STUDY_RAY_PORT"
DEFAULT_PORT = 8265  # Ray's default for the Jobs API and the dashboard
WORKERS = 2
START_TIMEOUT_S = 240.0
WRITES_ITS_ID_WITHIN_S = 10.0
PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
OBJECT_STORE_BYTES = 200_000_000  # we send nothing through it
RESTART_AFTER_S = 2  # twice as long after each start that did not last
RESTART_AFTER_AT_MOST_S = 120
LASTED_S = 30
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
    os.environ.pop("RAY_AUTH_TOKEN", None)  # of a cluster that RAY_ADDRESS names, perhaps
    os.environ["RAY_AUTH_TOKEN_PATH"] = _token()
    with _lock():
        if found := running():
            return found
        _end_all()
        try:
            return _start()
        except BaseException:  # Ctrl-C too
            _end_all()
            raise


def down() -> bool:
    """Stops the cluster; tells whether there was one."""
    with _lock():
        return _end_all()


def running() -> str | None:
    """Returns the address of the Jobs API if the cluster is up, else None."""
    return _address().read_text().strip() if len(nodes()) == 1 + WORKERS else None


def nodes() -> list[psutil.Process]:
    """Returns the live leaders of the nodes' process groups, the head's first.

    Each holds a lock as long as it lives, and has written its own process id.
    """
    found = []
    for number in range(1 + WORKERS):
        if s3.is_held(_lock_of(number)):
            with suppress(psutil.Error, FileNotFoundError, ValueError):
                leader = psutil.Process(int(_pid_of(number).read_text()))
                # a lock may outlive who wrote the number, which then is any other program's
                if str(_pid_of(number)) in " ".join(leader.cmdline()):
                    found.append(leader)
    return found


def _address() -> Path:
    return s3.state_dir() / "cluster.address"


def _lock_of(number: int) -> Path:
    return s3.state_dir() / f"node-{number}.lock"


def _pid_of(number: int) -> Path:
    return s3.state_dir() / f"node-{number}.pid"


def folder() -> Path:
    """Returns the folder of the nodes' files and logs."""
    return short_folder("cluster")


def _lock() -> FileLock:
    return FileLock(s3.state_dir() / "cluster.lock", timeout=START_TIMEOUT_S)


def _end_all() -> bool:
    """Ends each node: first the process that would restart it, then all that this has started.

    A node whose leader has died is ended too.
    """
    leaders = nodes()
    left = _without(leaders)
    everyone = [
        *left,
        *(child for one in (*leaders, *left) for child in one.children(recursive=True)),
    ]
    for leader in leaders:
        leader.kill()
    for child in everyone:
        if child.is_running():
            child.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([*leaders, *everyone], timeout=5)
    for child in alive:
        child.kill()
    shutil.rmtree(folder(), ignore_errors=True)
    for path in (_address(), *map(_pid_of, range(1 + WORKERS))):
        path.unlink(missing_ok=True)
    return bool(leaders or left)


def _without(leaders: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Returns this cluster's nodes, as their command lines name them, that none of the leaders has started."""
    words, found = {f"--temp-dir={folder()}/{n}" for n in range(1 + WORKERS)}, []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if words & {*process.cmdline()} and not {*process.parents()} & {*leaders}:
                found.append(process)
    return found


def _start() -> str:
    jobs = s3.port_from(PORT) or DEFAULT_PORT
    if s3.answers(jobs):
        raise ResourceError(f"port {jobs} is in use: set {PORT} to a free one")
    place = s3.connect().place
    address, gcs = f"http://127.0.0.1:{jobs}", s3.free_port()
    variables = _environment(place)
    _address().write_text(f"{address}\n")

    def node(number: int, *arguments: str) -> None:
        command = shlex.join(
            [sys.executable, "-m", "infra.local.node", "start", *arguments,
             "--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECT_STORE_BYTES}",
             # fixed ones may be another cluster's, which then accepts no job
             *(f"--{port}={s3.free_port()}" for port in PORTS),
             # one each: nodes that shared it would delete each other's copies of the code
             f"--temp-dir={folder()}/{number}", "--disable-usage-stats", "--block"]
        )  # fmt: skip
        with (
            (s3.state_dir() / "cluster.log").open("ab") as log,
            s3.held_by_child(_lock_of(number)) as lock,
        ):
            subprocess.Popen(
                ["bash", "-c", kept_up(command, _pid_of(number))], env=variables, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, cwd=Path(__file__).parents[2], start_new_session=True, pass_fds=(lock,),
            )  # fmt: skip

    node(
        0, "--head", f"--port={gcs}", "--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={jobs}", f"--ray-client-server-port={s3.free_port()}",
    )  # fmt: skip
    _wait(lambda: alive(address) == 1, 1, "its head")
    for number in range(1, 1 + WORKERS):
        share = [f"--num-cpus={max(1, cores() // WORKERS)}"]
        node(
            number, f"--address=127.0.0.1:{gcs}", *share, *(["--num-gpus=0"] if number > 1 else [])
        )
    _wait(lambda: alive(address) == 1 + WORKERS, 1 + WORKERS, "its workers")
    return address


def kept_up(command: str, pid: Path) -> str:
    """Returns bash that restarts a command as long as the clone is there and `pid` has bash's own process id.

    A folder of the user's state that is deleted, or another cluster in it, ends it too.
    """
    note, most = shlex.quote(str(pid)), RESTART_AFTER_AT_MOST_S
    mine = f'[ -e {shlex.quote(__file__)} ] && [ "$(cat {note} 2>/dev/null)" = $$ ]'
    return (
        f"echo $$ > {note}; after={RESTART_AFTER_S}; while {mine}; do SECONDS=0; {command}; "
        f"[ $SECONDS -lt {LASTED_S} ] || after={RESTART_AFTER_S}; "
        f"{mine} && sleep $after; after=$((after * 2 < {most} ? after * 2 : {most})); done"
    )


def alive(address: str) -> int:
    """Returns how many nodes of a cluster are alive; 0 if it does not answer.

    Who listens on this machine gets the token, so it must be this user's process, and not whoever took the port before
    the head.
    """
    host, _, port = address.removeprefix("http://").rpartition(":")
    if host == "127.0.0.1" and not s3.listens_for_us(int(port)):
        return 0
    try:
        return len(Cluster(address, "").shapes())
    except Unreachable:
        return 0


def _environment(place: Bucket) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    variables = {**SETTINGS, **HEALTH, **QUIET, **os.environ, **place.variables(), "PATH": path}
    # infra.local.node sets the first; nodes may be lost (the second); nodes have the S3 keys themselves
    for name in (
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "RAY_ADDRESS",
        EMBEDDED, "RAY_AUTH_TOKEN",
    ):  # fmt: skip
        variables.pop(name, None)
    return variables | {"RAY_AUTH_TOKEN_PATH": _token()}


def _token() -> str:
    return str(s3.secret_file("ray_token"))


def _wait(ready: Callable[[], bool], count: int, what: str) -> None:
    begun, deadline = time.monotonic(), time.monotonic() + START_TIMEOUT_S
    while not ready():
        died = len(nodes()) < count and time.monotonic() - begun > WRITES_ITS_ID_WITHIN_S
        if time.monotonic() > deadline or died:
            log = s3.state_dir() / "cluster.log"
            last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise ResourceError(f"the local Ray cluster did not start {what}: {last} (log: {log})")
        time.sleep(0.3)
