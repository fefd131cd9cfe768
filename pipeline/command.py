"""The frame of every stage and command: errors as one message, exit status, ending if DVC is killed."""

import atexit
import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import psutil

from pipeline import environment
from pipeline.errors import ParamsError, StudyError

PR_SET_PDEATHSIG = 1
TIMES = "STUDY_TIMES"


def stage(work: Callable[..., None], reads: Callable[..., object]) -> NoReturn:
    """Runs a stage as `main` does, and fails if what it depends on was edited meanwhile.

    DVC notes parameters and code as they are when a stage has ended: it would take the old ones' result for
    that of the new. `reads` returns what of params.yaml, and of its schedules, the stage depends on.
    """

    def guarded(*arguments: str) -> None:
        code = Path("state/code") / Path(sys.argv[0]).stem

        def depends_on() -> object:
            return reads(*arguments), code.read_text() if code.exists() else ""

        before = depends_on()
        work(*arguments)
        if depends_on() != before:
            raise ParamsError(
                "what this stage depends on (params.yaml, a schedule or the code) was edited while it ran: what it "
                "has computed is kept under its key: `dvc repro` again, for the edited study"
            )

    main(guarded)


def main(work: Callable[..., None]) -> NoReturn:
    """Runs `work` with the command's arguments, and exits; a StudyError is printed, with status 2."""
    environment.settle()
    parent = os.getppid()
    if sys.platform == "linux":  # `kill -9` of dvc must not leave a second trainer behind
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    _let_it_be_timed()
    _leave(_status_of(work))


def _status_of(work: Callable[..., None]) -> int:
    try:
        work(*sys.argv[1:])
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno is None or not error.strerror:
            raise
        where = error.filename or "a file or connection of this stage"
        hint = ": free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        then = "once this is fixed, `dvc repro` goes on, and `dvc checkout` restores the earlier result"
        if error.errno == errno.ENOENT:
            then = "`dvc repro` makes what the study lacks, and `dvc pull` fetches what was pushed"
        print(f"error: {where}: {error.strerror}{hint}; {then}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        default = "interrupted: run `dvc repro` to go on from the last checkpoint"
        print(str(interrupt) or default, file=sys.stderr)
        return 130
    return 0


def _leave(status: int) -> NoReturn:
    """Ends this process as Python does, but takes nothing apart that it has imported.

    Doing that to torch or MLflow takes a fifth of the processor time of a stage that only collects.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # ends executors, and waits for other threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # as Python does: whoever read it is gone, or the disk is full
            status = status or 120
    os._exit(status)


def _let_it_be_timed() -> None:
    """When this stage ends, appends the time it took to the file that `make study` names."""
    if not (path := os.environ.get(TIMES)):
        return
    begun_at, name = begun(), Path(sys.argv[0]).stem + "".join(f"@{row}" for row in sys.argv[1:])

    def write() -> None:
        used = sum(os.times()[:4])
        line = {"stage": name, "seconds": time.time() - begun_at, "processor_s": used}
        with contextlib.suppress(FileNotFoundError), Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")

    atexit.register(write)


def _command() -> psutil.Process | None:
    """Returns the DVC command that runs this stage (`dvc repro`, `dvc exp run`), or None."""
    found = None
    for ancestor in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            if _is_dvc(ancestor.cmdline()):
                found = ancestor
    return found


def _is_dvc(words: Sequence[str]) -> bool:
    """Tells whether a command is DVC, as a program, a script of Python's or a module; not a terminal that is called so."""
    program, script, module = [*words, "", "", ""][:3]
    if Path(program).name == "dvc":
        return True
    called = Path(script).name == "dvc" or (script, module) == ("-m", "dvc")
    return Path(program).name.startswith("python") and called


def occasion() -> str:
    """Returns an identifier of the DVC command that runs this stage, shared by all of its stages."""
    process = _command() or psutil.Process()
    return f"{socket.gethostname()} {process.pid} {_ticks_at_start(process)}"


def begun() -> float:
    """Returns when this stage began, in seconds since 1970.

    psutil would add to the time of the boot, of which Linux tells whole seconds only.
    """
    process = psutil.Process()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return process.create_time()
    since_boot_s = int(_ticks_at_start(process)) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


def _ticks_at_start(process: psutil.Process) -> str:
    """Returns when a process began, by a clock that is never adjusted where the system has one."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{process.create_time():.0f}"
