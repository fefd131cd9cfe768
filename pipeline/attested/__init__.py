"""Which source was shown to compute the same as older source: one file for each `make attest`.

A file lists digests of source, each with that of the older source whose trainings ended with the same
bits on one kind of device (docs/adr/0016). Run keys are computed from the oldest, so that results from
before a change stay valid; those from another kind of device do not, until the change is attested there
too.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def equals(device: str | None = None, folder: Path = FOLDER) -> Mapping[str, str | None]:
    """Returns, for each attested source, the older one that it equals; None if it begins a chain.

    With a `device`, "cpu" or "cuda", only what was found on it counts, otherwise what was found on any;
    the beginning of a chain counts on all.
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
    """Returns the oldest source that a source equals on a device; itself if it was not attested."""
    known, seen = equals(device, folder), {source}
    while (older := known.get(source)) is not None and older not in seen:
        source = older
        seen.add(source)
    return source
