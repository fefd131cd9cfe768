"""`make study`: brings the study up to date, even if a row fails, and says where the time went."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import psutil
import yaml
from filelock import FileLock, Timeout

from infra.local import s3
from pipeline.files import scratch

LOCK = Path("dvc.lock")
TIMES = "STUDY_TIMES"  # each stage adds a line to this file
INTERRUPTED = 130
POLL_S = 0.2


def main() -> int:
    """Runs `dvc repro`; returns its exit status."""
    began = time.monotonic()
    check = [sys.executable, "-m", "stages.check"]  # for an empty params.yaml DVC has its own words
    if status := subprocess.call(check):
        return status
    mend_what_dvc_left()
    with scratch("times") as folder:
        times = folder / "times"
        status = _repro(times)
        lines = times.read_text().splitlines() if times.exists() else []
    _show([json.loads(line) for line in lines], time.monotonic() - began)
    if status == INTERRUPTED:
        print("interrupted: `make study` goes on from the last checkpoints", file=sys.stderr)
    elif status:
        print(
            "not everything was brought up to date: the errors above say why; the report needs every row: "
            "with a row that failed taken out of params.yaml, `make study` writes that of the others",
            file=sys.stderr,
        )
    else:
        print(f"report:    {Path('report/index.html').resolve()}\nMLflow UI: make ui")
    return status


def _repro(times: Path) -> int:
    """Runs DVC, and returns its exit status.

    At Ctrl-C, which the stage gets too, DVC would note a failed stage and keep going with the next: it is
    ended, whatever it is writing. So it is if this process alone is told to end, or its terminal is closed.
    """
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())

    def interrupt_stages(*_: object) -> None:
        interrupted.set()
        with suppress(psutil.Error):
            for stage in psutil.Process(dvc.pid).children():
                stage.send_signal(signal.SIGINT)

    dvc = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--keep-going"],
        env={**os.environ, TIMES: str(times)},
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, interrupt_stages)
    while dvc.poll() is None:
        if not interrupted.is_set():
            with suppress(subprocess.TimeoutExpired):
                dvc.wait(POLL_S)
            continue
        with suppress(psutil.NoSuchProcess):
            psutil.wait_procs(psutil.Process(dvc.pid).children())
        dvc.terminate()  # a stage that it has just begun ends with it
        dvc.wait()
        mend_what_dvc_left()
    return INTERRUPTED if interrupted.is_set() else dvc.returncode


def mend_what_dvc_left() -> None:
    """Puts away what DVC was writing when it was killed: it refuses to go on with half a file."""
    set_torn_lock_aside()
    delete_torn_rwlock()


def set_torn_lock_aside(path: Path = LOCK) -> None:
    """Moves dvc.lock away if DVC was killed while it wrote it: results are collected again by their keys.

    A merge's conflict in it is left to the person, and a file that a running DVC is writing to that.
    """
    if not path.exists() or _is_whole(content := path.read_bytes()) or b"<<<<<<< " in content:
        return
    if s3.is_held(path.parent / ".dvc/tmp/lock"):
        return
    aside = path.with_name(f"{path.name}.torn")
    path.replace(aside)
    print(
        f"warning: {path} is incomplete, as if DVC was killed while it wrote it: moved to {aside}; results "
        "that are on S3 are collected by their keys",
        file=sys.stderr,
    )


def delete_torn_rwlock(path: Path = Path(".dvc/tmp/rwlock")) -> None:
    """Deletes DVC's list of who reads and writes what, if DVC was killed while it wrote it."""
    if not path.exists():
        return
    # DVC's own lock, around each change
    with suppress(Timeout), FileLock(path.with_name("rwlock.lock"), timeout=0):
        try:
            json.loads(path.read_text())
        except ValueError:
            path.unlink()


def _is_whole(content: bytes) -> bool:
    """Tells whether DVC can read it."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        COMPILED_LOCKFILE_SCHEMA(yaml.load(content, Loader=loader))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def _show(stages: list[dict[str, float]], total_s: float) -> None:
    print(f"where the time went ({total_s:.0f} s):")
    rest, kinds = total_s, groupby(stages, key=lambda line: str(line["stage"]).partition("@")[0])
    for kind, some in kinds:
        found = list(some)
        seconds, used = (sum(line[name] for line in found) for name in ("seconds", "processor_s"))
        times = f" ({len(found)} times)" if len(found) > 1 else ""
        print(f"  {kind + times:24} {seconds:7.1f} s, {used:7.1f} s of CPU time")
        rest -= seconds
    print(f"  {'DVC and the rest':24} {rest:7.1f} s")
