"""The identity of a training: the same key resumes or collects, another starts afresh."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pipeline
from pipeline.errors import ParamsError
from pipeline.params import Row, canonical_sha256
from pipeline.training.schedule import Schedule

SOURCES = ("models", "data", "training")  # what a training computes is determined by these
CONTINUE = "STUDY_CONTINUE"
KEY_LENGTH = 24


def source_digest(*folders: str) -> str:
    """Returns the sha256 of the source in folders of the library."""
    root = Path(pipeline.__file__).parent
    sha = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                continue  # of an editor or a notebook: nothing imports it
            sha.update(f"{path.relative_to(root).as_posix()}\n".encode())
            sha.update(path.read_bytes())
    return sha.hexdigest()


def what_is_trained(row: Row, schedule: Schedule, data_digest: str) -> dict[str, Any]:
    """Returns all that determines a training but the source: row, schedule's content, data."""
    return {
        "row": row.model_dump(mode="json", exclude={"schedule"}),
        "schedule": schedule.model_dump(mode="json"),
        "data": data_digest,
    }


def run_key(name: str, row: Row, schedule: Schedule, data_digest: str) -> tuple[str, bool]:
    """Returns the key of a row's training and whether the user overrode it.

    The key is the sha256 over the row (its schedule by content), the data digest and the source of
    models/, data/ and training/. The environment may say `STUDY_CONTINUE=<row>=<key>`, so that a
    training goes on although a comment in that source changed; model.json and MLflow record it, and
    a checkpoint of another row, schedule or data set is refused.
    """
    if override := dict(_overrides()).get(name):
        return override, True
    identity = {**what_is_trained(row, schedule, data_digest), "source": source_digest(*SOURCES)}
    return canonical_sha256(identity)[:KEY_LENGTH], False


def _overrides() -> list[tuple[str, str]]:
    pairs = []
    for entry in os.environ.get(CONTINUE, "").split():
        name, _, key = entry.partition("=")
        if len(key) != KEY_LENGTH or set(key) - set("0123456789abcdef"):
            raise ParamsError(
                f"{CONTINUE}: found {entry!r}, wanted <row>=<key of {KEY_LENGTH} hexadecimal digits>"
            )
        pairs.append((name, key))
    return pairs
