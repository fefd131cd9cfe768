"""Files that are written completely or not at all, and locks."""

import json
import os
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline import environment
from pipeline.errors import BusyError, ResourceError

LOCK_TIMEOUT_S = 5.0  # a killed predecessor takes a moment to exit

SECRETS_LOCK = "secrets.lock"
SHORT = 24  # characters: the longest temporary folder whose path leaves room for sockets


def private_folder(*, short: bool = False) -> Path:
    """Returns a temporary folder that only this user can enter; raises ResourceError if that fails.

    A `short` one is for sockets, whose paths are limited to about a hundred characters: /tmp then
    replaces a long TMPDIR such as Slurm and macOS set.
    """
    base = tempfile.gettempdir()
    path = Path("/tmp" if short and len(base) > SHORT else base) / f"study-{os.getuid()}"
    path.mkdir(exist_ok=True, mode=0o700)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise ResourceError(
            f"{path}: wanted a folder of your own that others cannot enter (mode 700): move it away, "
            f"or set TMPDIR to another place{f', of at most {SHORT} characters' if short else ''}"
        )
    return path


def short_folder(name: str) -> Path:
    """Returns this state folder's private folder for sockets, which need a short path."""
    whose = zlib.crc32(str(environment.state_dir()).encode())
    path = private_folder(short=True) / f"{name[0]}{whose:08x}"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


@contextmanager
def scratch(what: str, *, short: bool = False) -> Iterator[Path]:
    """Yields a private temporary folder, after deleting those that killed processes left behind.

    A lock shows whether the process that made a folder is alive, since the kernel releases the lock when
    the process ends; process IDs would not do where containers share a folder. A `short` one is for
    sockets (`private_folder`).
    """
    around = private_folder(short=short)
    with FileLock(around / "scratch.lock"):
        for left in around.glob(f"{what}-*.held"):
            _delete_if_left(left)
        path = around / f"{what}-{secrets.token_hex(4)}"
        held = FileLock(f"{path}.held", thread_local=False)
        held.acquire()  # before the folder is made: leftovers are found by their locks
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        held.release()
        Path(held.lock_file).unlink(missing_ok=True)


def _delete_if_left(lock: Path) -> None:
    """Deletes a temporary folder if no process holds its lock."""
    held = FileLock(lock)
    with suppress(Timeout):
        held.acquire(timeout=0)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        held.release()
        lock.unlink(missing_ok=True)


def write(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Writes a file next to its final path, then moves it there; an earlier file stays until then.

    If it is to be `durable`, it is on the disk when this returns, whatever happens to the power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
        if durable:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        part.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only this user can read (mode 600), or leaves the earlier one."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def secret(path: Path) -> Path:
    """Returns a file that only this user can read, with a random token, which the first caller writes."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(path.parent / SECRETS_LOCK):
        if not path.exists() or not path.read_text().strip():
            write_private(path, secrets.token_hex(32))
    return path


def write_json(path: Path, document: Any, *, durable: bool = False) -> None:
    """Writes a document as indented JSON."""
    write(path, json.dumps(document, indent=1) + "\n", durable=durable)


@contextmanager
def exclusively(lock: Path, what: str) -> Iterator[None]:
    """Holds a lock file so that only one process does `what`; raises BusyError if another holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise BusyError(
            f"{what} is already under way in another process on this machine: wait for it or end it"
        ) from None
    try:
        yield
    finally:
        held.release()
