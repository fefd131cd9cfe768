"""Checks everything that a project keeps on S3: every hash, every document, every reference.

Whatever names a thing can show that it is missing: a manifest its objects, a checkpoint its attempt, a
later instance its request, a search its trials, a folder of DVC's its files, MLflow its artifacts. What
nothing names (the last attempt of a training without a checkpoint, the request of a first instance) may
be deleted unnoticed, and is not missed.
"""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.storage.layout import KINDS, SEARCHES, TRIALS, opened, project, sealed
from pipeline.storage.objects import Storage

Kind = Literal["damaged", "missing", "orphaned"]
THREADS = 2 * (os.cpu_count() or 1)
WRITING_S = 3.0  # between an object and the manifest that names it, as between two looks
LOOKS, YOUNG_S = 5, 60.0  # further looks at an object as young as that: its writer may try again
DVC = "dvc/files/md5/"
# what was written before documents had checksums
UNSEALED = ({"request", "time"}, {"host", "pid", "token"})
IN_INSTANCE = re.compile(rf"(?P<place>(?:{'|'.join(KINDS)})/[^/]+/(?P<number>\d+)/)(?P<inside>.+)")
DOCUMENT = re.compile(r"(?:begun|collected)\.json|manifests/.+\.json|attempts/\d{6}\.json")
OBJECT = re.compile(r"objects/([0-9a-f]{64})")
ATTEMPT = re.compile(r"attempts/(\d{6})\.json")


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong with an object: its key in the bucket, and why."""

    key: str
    kind: Kind
    why: str


@dataclass(frozen=True)
class Seen:
    """What one look at an object found: its size, what is wrong, what it names, what it says."""

    bytes: int = 0
    damage: str = ""
    names: Mapping[str, str] = field(default_factory=dict)  # keys below the project, and what for
    says: Mapping[str, Any] = field(default_factory=dict)
    is_gone: bool = False


class Audit:
    """A look at all that a project has in a bucket; `copies` are the sha256 of further keys, as MLflow's."""

    def __init__(self, storage: Storage, copies: Mapping[str, str]) -> None:
        self._storage, self._copies, self._prefix = storage, copies, f"{project()}/"
        listing, since = storage.listing(self._prefix), time.time() - YOUNG_S
        self.sizes = {key: one.bytes for key, one in listing.items()}
        self._young = {key for key, one in listing.items() if one.modified > since}
        folders = {f"{key.split('/')[0]}/" for key in copies}
        others = {key: one for folder in folders for key, one in storage.listing(folder).items()}
        self.bytes = sum(self.sizes.values())
        self.bytes += sum(others[key].bytes for key in copies if key in others)

    def faults(self, advance: Callable[[int], None]) -> list[Fault]:
        """Reads every object once, calling `advance` with its bytes; returns what is wrong, sorted.

        What is written or deleted meanwhile is looked at again.
        """
        found = dict[str, Seen]()
        with ThreadPoolExecutor(THREADS) as pool:
            keys = list(dict.fromkeys([*self.sizes, *self._copies]))
            for key, seen in zip(keys, pool.map(self._look, keys), strict=True):
                found[key] = seen
                advance(seen.bytes)
        faults = list(self._judged(found))
        for look in range(LOOKS):
            if not faults or (look and self._young.isdisjoint(one.key for one in faults)):
                break
            time.sleep(WRITING_S)
            # what else a fault is named by may change
            before = {(one.key, one.kind) for one in faults}
            later = set(self._judged(self._again(found, faults)))
            faults = [one for one in later if (one.key, one.kind) in before]
        return sorted(faults)

    def _again(self, found: Mapping[str, Seen], faults: Iterable[Fault]) -> dict[str, Seen]:
        """Returns what was found, with another look at the instances that have faults."""
        around = {self._around(fault.key) for fault in faults}
        kept = {key: seen for key, seen in found.items() if self._around(key) not in around}
        for prefix in around:
            kept |= {key: self._look(key) for key in self._storage.keys(prefix)}
        return kept | {key: self._look(key) for key in self._copies if key not in kept}

    def _around(self, key: str) -> str:
        """Returns the prefix of an instance, or else the key itself."""
        match = IN_INSTANCE.fullmatch(key.removeprefix(self._prefix))
        return f"{self._prefix}{match['place']}" if match else key

    # --- one object -----------------------------------------------------------------------------

    def _look(self, key: str) -> Seen:
        if (sha256 := self._copies.get(key)) is not None:
            return self._hashed(key, "sha256", sha256)
        inside = key.removeprefix(self._prefix)
        if inside.startswith(DVC):
            return self._of_dvc(key, inside.removeprefix(DVC).replace("/", ""))
        if (match := IN_INSTANCE.fullmatch(inside)) is None:
            is_ours = inside.startswith(("dvc/", "turns/"))  # pipeline/tracking/turn.py
            return Seen(damage="" if is_ours else "no such object belongs here")
        if (named := OBJECT.fullmatch(match["inside"])) is not None:
            return self._hashed(key, "sha256", named[1])
        if not DOCUMENT.fullmatch(match["inside"]):
            return Seen(damage="no such object belongs here")
        return self._document(key, inside, match["place"], match["inside"])

    def _hashed(self, key: str, algorithm: str, wanted: str) -> Seen:
        found = self._storage.digest(key, algorithm)
        if found is None:
            return Seen(is_gone=True)
        digest, size = found
        why = f"{algorithm} {digest} of {size:,} bytes, wanted {wanted}"
        return Seen(size, "" if digest == wanted else why)

    def _of_dvc(self, key: str, name: str) -> Seen:
        seen = self._hashed(key, "md5", name.removesuffix(".dir"))
        if seen.damage or seen.is_gone or not name.endswith(".dir"):
            return seen
        files = json.loads(self._storage.get(key) or b"[]")
        return Seen(seen.bytes, names={dvc_key(one["md5"]): one["relpath"] for one in files})

    def _document(self, key: str, at: str, place: str, inside: str) -> Seen:
        if (content := self._storage.get(key)) is None:
            return Seen(is_gone=True)
        if (said := opened(content, at)) is None:
            known = inside == "begun.json" or inside.startswith("attempts/")
            fine = known and _is_unsealed(content)
            return Seen(len(content), "" if fine else "not what was written there")
        at_of = said.pop("at", None)
        if at_of is not None and sealed(said, at_of) != content:
            return Seen(len(content), "not the bytes that were written there")
        objects = said.get("objects", {})
        names = {f"{place}objects/{digest}": name for name, digest in objects.items()}
        return Seen(len(content), names=names, says=said.get("facts", {}))

    # --- all together ---------------------------------------------------------------------------

    def _judged(self, found: Mapping[str, Seen]) -> Iterable[Fault]:
        there = {key: seen for key, seen in found.items() if not seen.is_gone}
        named = dict[str, str]()
        attempts = defaultdict[str, set[int]](set)
        of_searches, unknown = set[str](), set[str]()  # and the instances with a damaged document
        for key, seen in found.items():
            match = IN_INSTANCE.fullmatch(key.removeprefix(self._prefix))
            if seen.is_gone and key in self._copies:
                yield Fault(key, "missing", "MLflow names it")
            elif seen.damage:
                yield Fault(key, "damaged", seen.damage)
                if match and DOCUMENT.fullmatch(match["inside"]):
                    unknown.add(match["place"])
            named |= {f"{self._prefix}{one}": f"{key} ({what})" for one, what in seen.names.items()}
            if match and (number := seen.says.get("attempt")):
                attempts[match["place"]] |= set(range(1, number + 1))
            if match and (attempt := ATTEMPT.fullmatch(match["inside"])):
                attempts[match["place"]] |= set(range(1, int(attempt[1]) + 1))
            of_search = key.startswith(f"{self._prefix}{TRIALS}/")  # whose instance it shares
            if match and int(match["number"]) > 1 and not of_search:
                named[f"{self._prefix}{match['place']}begun.json"] = f"{match['place']} is later"
            if match and match["place"].startswith(f"{SEARCHES}/"):
                of_searches |= set(seen.says.get("trials", ()))
        for place, numbers in attempts.items():
            of = {f"{self._prefix}{place}attempts/{number:06d}.json" for number in numbers}
            named |= dict.fromkeys(of, f"a later attempt of {place}")
        for key in sorted(named.keys() - there.keys()):
            yield Fault(key, "missing", f"named by {named[key]}")
        for key in there:
            if (match := IN_INSTANCE.fullmatch(key.removeprefix(self._prefix))) is None:
                continue
            kind, name = match["place"].split("/")[:2]
            is_manifest = match["inside"].startswith("manifests/")
            if kind == TRIALS and is_manifest and name not in of_searches:
                yield Fault(key, "orphaned", "no search names this trial")
            if match["place"] in unknown:
                continue  # a damaged document may name it
            if OBJECT.fullmatch(match["inside"]) and key not in named:
                yield Fault(key, "orphaned", "no manifest names it")


def dvc_key(md5: str) -> str:
    """Returns where DVC's remote has a file or folder (`<md5>.dir`), below the project's prefix."""
    return f"{DVC}{md5[:2]}/{md5[2:]}"


def _is_unsealed(content: bytes) -> bool:
    try:
        return set(json.loads(content)) in UNSEALED
    except (ValueError, TypeError):
        return False
