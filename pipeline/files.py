"""Files that are there whole or not at all."""

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from pipeline.errors import ResourceError


def private_folder() -> Path:
    """Returns a folder among temporary ones that is this user's alone; raises ResourceError."""
    path = Path(tempfile.gettempdir()) / f"resnet-study-{os.getuid()}"
    path.mkdir(exist_ok=True, mode=0o700)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise ResourceError(
            f"{path}: wanted a folder of your own that others cannot enter (mode 700): move it away, "
            "or set TMPDIR to another place"
        )
    return path


def write(path: Path, content: bytes | str) -> None:
    """Writes a file beside its place and moves it there; what was there before stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Writes a document as indented JSON."""
    write(path, json.dumps(document, indent=1) + "\n")
