"""What every stage does around its work: errors as one message, an exit status, dying with DVC."""

import contextlib
import ctypes
import errno
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from pipeline.errors import StudyError

PR_SET_PDEATHSIG = 1


def main(work: Callable[..., None]) -> None:
    """Runs `work` with the command's arguments; a StudyError is printed and exits with 2."""
    parent = os.getppid()
    if sys.platform == "linux":  # `kill -9` of dvc must not leave a second trainer behind
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    try:
        work(*sys.argv[1:])
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None or not error.strerror:
            raise
        where = error.filename or "a file or connection of this stage"
        hint = ": free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        print(
            f"error: {where}: {error.strerror}{hint}; then `dvc repro` goes on, and `dvc checkout` "
            "brings the earlier result back",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        default = "interrupted: run `dvc repro` to go on from the last checkpoint"
        print(str(interrupt) or default, file=sys.stderr)
        sys.exit(130)


def _repro() -> psutil.Process | None:
    """Returns the `dvc repro` that runs this stage, or None."""
    for ancestor in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            command = ancestor.cmdline()
            if "repro" in command and any("dvc" in Path(word).name for word in command[:3]):
                return ancestor
    return None


def is_forced() -> bool:
    """Tells whether this stage runs under `dvc repro -f`, which asks to train afresh."""
    repro = _repro()
    return repro is not None and any(
        word == "--force" or re.fullmatch(r"-[a-zA-Z]*f[a-zA-Z]*", word) for word in repro.cmdline()
    )


def occasion() -> str:
    """Returns a name of the `dvc repro` that runs this stage, the same for all of its stages."""
    process = _repro() or psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time():.0f}"
