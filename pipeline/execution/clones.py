"""The clones of a user on this host, which share a storage: one must not take for useless what another needs."""

import hashlib
from pathlib import Path

from pipeline.environment import state_dir
from pipeline.files import write
from pipeline.storage.layout import project


def note(clone: Path) -> None:
    """Notes that a folder is a clone that uses this user's storage; DVC's temporary copies are not."""
    place = clone.resolve()
    if ".dvc" not in place.parts:
        name = hashlib.sha256(str(place).encode()).hexdigest()[:16]
        write(_notes() / name, f"{place}\n")


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
