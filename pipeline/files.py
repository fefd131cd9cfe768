"""Files that are there whole or not at all."""

import json
from pathlib import Path
from typing import Any


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
