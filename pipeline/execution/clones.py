"""The clones of a user on this host, which share a storage: one must not take for useless what another needs."""

import hashlib
from pathlib import Path

from pipeline.environment import state_dir
from pipeline.files import write


def note(clone: Path) -> None:
    """Notes that a folder is a clone that uses this user's storage."""
    place = clone.resolve()
    write(_notes() / hashlib.sha256(str(place).encode()).hexdigest()[:16], f"{place}\n")


def known() -> list[Path]:
    """Returns the noted clones that are still there, and the folder of this process."""
    noted = (Path(note.read_text().strip()) for note in _notes().glob("*"))
    there = {clone for clone in noted if (clone / ".git").exists()}
    return sorted({Path.cwd().resolve(), *there})


def _notes() -> Path:
    return state_dir() / "clones"
