"""The clones of a user on this host, which share a storage: one must not take for useless what another needs."""

import hashlib
from pathlib import Path

from pipeline.environment import state_dir
from pipeline.files import write
from pipeline.storage.layout import project


def note(clone: Path) -> None:
    """Notes that a folder uses this user's storage, if it is a clone; DVC's temporary copies are none."""
    place = clone.resolve()
    noted = _notes() / hashlib.sha256(str(place).encode()).hexdigest()[:16]
    if (place / ".git").exists() and ".dvc" not in place.parts and not noted.exists():
        write(noted, f"{place}\n")


def known() -> tuple[list[Path], dict[Path, Path]]:
    """Returns the clones, that of this process among them, and of those that are not there the notes."""
    found, gone = {Path.cwd().resolve()}, dict[Path, Path]()
    for noted in sorted(_notes().glob("*")):
        clone = Path(noted.read_text().strip())
        if (clone / ".git").exists():
            found.add(clone)
        else:
            gone[clone] = noted
    return sorted(found), gone


def _notes() -> Path:
    return state_dir() / "clones" / project()
