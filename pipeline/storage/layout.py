"""How everything is stored on S3: `<project>/<kind>/<key>/<instance>/…`, the same for every kind.

    <instance>/begun.json            the request for this instance; the first one needs none
    <instance>/manifests/<name>.json what is there: facts, and objects by their sha256; written last
    <instance>/objects/<sha256>      the bytes
    <instance>/attempts/<n>.json     the writing process (checkpoints: only the last attempt may write)
    <instance>/collected.json        that a clone has collected it, so that nobody waits for it any more

What has no manifest does not count as stored. Every document names its own place and has a checksum.
Listing the manifests reads no object (some stores hash all bytes that they list). The project's id is in a file of the repository, so that two studies in one
bucket never touch each other's objects; beginning again makes the next instance and deletes nothing.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pipeline
from pipeline.errors import ParamsError, StorageError
from pipeline.storage.objects import Storage

TRAININGS, TRIALS, SEARCHES = "trainings", "trials", "searches"
MEASURING = "speed-"  # before eight digits, in the place of a key: what `make plan` measures with
DATA_SETS, SHARDS, EVALUATIONS = "sets", "shards", "evaluations"
KINDS = (TRAININGS, TRIALS, SEARCHES, DATA_SETS, SHARDS, EVALUATIONS)
BEGUN, COLLECTED = "begun.json", "collected.json"
PROJECT = Path(pipeline.__file__).with_name("project")


@cache
def project() -> str:
    """Returns the project's id; raises ParamsError if its file is missing or malformed."""
    found = PROJECT.read_text().strip() if PROJECT.exists() else ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{2,62}", found):
        raise ParamsError(
            f"{PROJECT.name} in pipeline/: found {found!r}, wanted an id of lower-case letters, digits "
            "and hyphens: `make project` draws one, or `git checkout pipeline/project`"
        )
    return found


def sha256(content: bytes) -> str:
    """Returns the sha256 of bytes as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sealed(document: Mapping[str, Any], at: str) -> bytes:
    """Returns a document's bytes with a checksum and its place below the project's prefix."""
    said = {**document, "at": at}
    return json.dumps({"manifest": said, "sha256": _sum_of(said)}).encode()


def opened(content: bytes, at: str) -> dict[str, Any] | None:
    """Returns a sealed document, or None if it is damaged or was written for another place.

    Those written before 2026-11-26 do not name their place.
    """
    try:
        found = json.loads(content)
        said: dict[str, Any] = found["manifest"]
        if _sum_of(said) == found["sha256"] and said.get("at", at) == at:
            return said
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


class Instances:
    """The instances of one key of a kind."""

    def __init__(self, storage: Storage, kind: str, key: str) -> None:
        self._storage, self._kind, self._key = storage, kind, key
        self.prefix = f"{project()}/{kind}/{key}/"

    def numbers(self) -> list[int]:
        """Returns the numbers of the existing instances, sorted."""
        found = self._storage.folders(self.prefix)
        return sorted(int(name) for name in found if name.isdecimal())

    def current(self) -> int:
        """Returns the number of the last instance; 1 if none has begun."""
        return max(self.numbers(), default=1)

    def begin(self, request: str) -> int:
        """Begins the next instance; the same request, if repeated, gets the one that it began."""
        while True:
            numbers = self.numbers()
            for number in reversed(numbers):  # others may have begun another since
                if self._request_of(number) == request:
                    return number
            new = max(numbers, default=0) + 1
            at = f"{self._kind}/{self._key}/{new}/{BEGUN}"
            content = sealed({"request": request, "time": time.time()}, at)
            if self._storage.put_new(f"{self.prefix}{new}/{BEGUN}", content):
                return new

    def _request_of(self, number: int) -> str | None:
        content = self._storage.get(f"{self.prefix}{number}/{BEGUN}")
        if content is None:
            return None
        try:
            found = json.loads(content)
            return str(found.get("manifest", found)["request"])
        except (ValueError, KeyError, AttributeError):
            return None

    def forget(self) -> int:
        """Deletes all instances, manifests (all JSON) first; returns the number of objects deleted."""
        names = self._storage.keys(self.prefix)
        self._storage.delete(*sorted(names, key=lambda name: not name.endswith(".json")))
        return len(names)


class Instance:
    """What one instance holds: manifests by name, and the objects that they refer to."""

    def __init__(self, storage: Storage, kind: str, key: str, number: int = 1) -> None:
        self.storage, self.number = storage, number
        self.place = f"{kind}/{key}/{number}/"
        self.prefix = f"{project()}/{self.place}"

    def address(self, name: str) -> str:
        """Returns the address, for messages, of an object of this instance."""
        return f"s3://{self.storage.bucket}/{self.prefix}{name}"

    def names(self) -> list[str]:
        """Returns the names of the manifests, sorted."""
        prefix = f"{self.prefix}manifests/"
        found = self.storage.keys(prefix)
        return [name[len(prefix) :].removesuffix(".json") for name in found]

    def note_collected(self) -> None:
        """Notes that a clone has collected this, if the clone may write: until then `make gc` keeps it."""
        content = sealed({"time": time.time()}, f"{self.place}{COLLECTED}")
        with suppress(StorageError):
            self.storage.put_new(f"{self.prefix}{COLLECTED}", content)

    def put_object(self, content: bytes) -> str:
        """Stores bytes under their sha256, and returns it."""
        digest = sha256(content)
        self.storage.put(self.object_key(digest), content)
        return digest

    def put_manifest(self, name: str, facts: Mapping[str, Any], objects: Mapping[str, str]) -> None:
        """Records that something is stored: its facts, and the sha256 of each of its objects by name."""
        content = sealed({"facts": facts, "objects": objects}, self._at(name))
        self.storage.put(self.manifest_key(name), content)

    def put(self, name: str, facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
        """Stores objects, and then the manifest that names them."""
        self.put_manifest(
            name, facts, {what: self.put_object(content) for what, content in contents.items()}
        )

    def manifest(self, name: str) -> tuple[dict[str, Any], dict[str, str]] | None:
        """Returns (facts, objects); None where there is none.

        Raises StorageError if it is damaged.
        """
        content = self.storage.get(self.manifest_key(name))
        if content is None:
            return None
        if (said := opened(content, self._at(name))) is None:
            where = self.address(f"manifests/{name}.json")
            raise StorageError(f"{where}: damaged: it is not what was written there")
        return said["facts"], said["objects"]

    def object(self, digest: str) -> bytes:
        """Returns an object's bytes; raises StorageError if they do not match its digest."""
        content = self.storage.get(self.object_key(digest))
        found = "nothing" if content is None else f"sha256 {sha256(content)}"
        if content is None or sha256(content) != digest:
            raise StorageError(
                f"{self.address(f'objects/{digest}')}: found {found}, expected {digest}"
            )
        return content

    def manifest_key(self, name: str) -> str:
        """Returns a manifest's key."""
        return f"{self.prefix}manifests/{name}.json"

    def _at(self, name: str) -> str:
        return f"{self.place}manifests/{name}.json"

    def object_key(self, digest: str) -> str:
        """Returns an object's key."""
        return f"{self.prefix}objects/{digest}"


def _sum_of(manifest: Any) -> str:
    return sha256(json.dumps(manifest, sort_keys=True).encode())
