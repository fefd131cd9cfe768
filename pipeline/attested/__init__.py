"""Which source was shown to compute what older source computes: one file for each `make attest`.

A file names digests of source, each with the older one that ended with the same bits (docs/adr/0016). Run
keys are computed from the oldest, so that what was trained before a change is still its result.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def equals(folder: Path = FOLDER) -> Mapping[str, str | None]:
    """Returns for each source that was attested the older one that it equals; None for a beginning."""
    found: dict[str, str | None] = {}
    for path in folder.glob("*.json"):
        found |= json.loads(path.read_text())["equals"]
    return found


def oldest(source: str, folder: Path = FOLDER) -> str:
    """Returns the oldest source that a source equals: itself, where it was not attested."""
    known, seen = equals(folder), {source}
    while (older := known.get(source)) is not None and older not in seen:
        source = older
        seen.add(source)
    return source
