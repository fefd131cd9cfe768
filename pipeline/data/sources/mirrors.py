"""The places named by the user that may have the archives of data sets."""

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ParamsError
from pipeline.params import Data

MIRRORS = "STUDY_MIRRORS"
DOWNLOADS = Path(
    ".downloads"
)  # archives of large sets, kept between stages, and parts of interrupted downloads


def mirrors() -> list[str]:
    """Returns the places in STUDY_MIRRORS: separated by spaces; one that contains a space is quoted."""
    text = os.environ.get(MIRRORS, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParamsError(
            f"{MIRRORS}: found {text!r} ({error}), wanted places separated by spaces, with "
            "quotation marks around one that contains a space"
        ) from error


def folder_at(places: Sequence[str], name: str) -> Path | None:
    """Returns the folder `name` in the first place on this machine that has it, or None."""
    found = (Path(place).expanduser() / name for place in places if "://" not in place)
    return next((folder for folder in found if folder.is_dir()), None)


def source_of(data: Data, places: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """Returns only what the archive of a data set depends on; later stages use the rest of `data`.

    A mirror's folder counts by its files' names, sizes and times, so a changed one is fetched again;
    if no place has the folder now, it counts as it was `before`. Changes under an s3:// prefix are
    noticed only by `dvc repro -f fetch`.
    """
    said: dict[str, Any] = data.model_dump(mode="json", include={"kind", "archive", "sha256"})
    archive = said.get("archive", "")
    if said.get("sha256") is None and archive.endswith("/") and "://" not in archive:
        if (there := folder_at(places, archive)) is not None:
            said["files"] = _listing(there)
        elif before.get("archive") == archive and "files" in before:
            said["files"] = before["files"]
    return said


def _listing(folder: Path) -> str:
    """Returns the digest of the names, sizes and times (ns) of a folder's files."""
    sha = hashlib.sha256()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            facts = path.stat()
            sha.update(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return sha.hexdigest()
