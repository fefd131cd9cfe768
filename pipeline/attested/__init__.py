"""Which source was shown to compute what older source computes: one file for each `make attest`.

A file names digests of source, each with the older one that ended with the same bits on a kind of device
(docs/adr/0016). Run keys are computed from the oldest, so that what was trained before a change is still its
result; what was trained on another kind of device is not, until that was attested too.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def equals(device: str | None = None, folder: Path = FOLDER) -> Mapping[str, str | None]:
    """Returns for each source that was attested the older one that it equals; None for a beginning.

    That is what was found on a `device`, "cpu" or "cuda", or on any; a beginning is one on all of them.
    """
    found: dict[str, str | None] = {}
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text())
        if device in (None, said.get("device", device)):
            found |= {
                source: older or found.get(source) for source, older in said["equals"].items()
            }
    return found


def oldest(source: str, device: str | None = None, folder: Path = FOLDER) -> str:
    """Returns the oldest source that a source equals on a device: itself, where it was not attested."""
    known, seen = equals(device, folder), {source}
    while (older := known.get(source)) is not None and older not in seen:
        source = older
        seen.add(source)
    return source
