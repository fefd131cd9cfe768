"""`make gc`: shows what nobody needs of what the project has on S3; `make gc APPLY=1` deletes it.

Needed is what the last commit of a branch, tag or stash names, of this clone and the user's others on this
host, after fetching what colleagues pushed; what their working folders name; what a process or a job works
on; trainings and searches that are not at their end, or that nobody has collected, with their data; and
whatever was written in the last DAYS days, since it may be of a clone that is not known here.
"""

import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout

from infra.local import s3
from pipeline import command, params, paths
from pipeline.errors import CheckpointError, ParamsError, ResourceError, StorageError, StudyError
from pipeline.execution import clones, needed
from pipeline.execution.begun import AGAIN, lock_of
from pipeline.execution.needed import ANY, Needs
from pipeline.execution.place import place_of
from pipeline.execution.there import cluster
from pipeline.execution.wanted import Wanted
from pipeline.files import exclusively
from pipeline.progress import Progress
from pipeline.storage.audit import DVC, IN_INSTANCE, dvc_key
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import (
    COLLECTED,
    DATA_SETS,
    MEASURING,
    SEARCHES,
    SHARDS,
    TRAININGS,
    TRIALS,
    Instance,
    project,
)
from pipeline.storage.objects import Listed, Storage
from pipeline.tuning.search import ALL

DAY_S = 24 * 3600.0
NOTED_SINCE = 1795737600.0  # 2026-11-27: what was written before does not tell who has collected it


@dataclass
class Part:
    """What is kept or deleted together: an instance of a key, or a file of DVC's."""

    name: str
    keys: list[str] = field(default_factory=list)
    bytes: int = 0
    modified: float = 0.0

    def add(self, key: str, listed: Listed) -> None:
        """Adds an object."""
        self.keys.append(key)
        self.bytes += listed.bytes
        self.modified = max(self.modified, listed.modified)

    @property
    def is_collected(self) -> bool:
        """Tells whether nobody waits for this, as far as is known."""
        noted = any(key.endswith(f"/{COLLECTED}") for key in self.keys)
        return noted or self.modified < NOTED_SINCE


def parts_of(storage: Storage) -> dict[str, Part]:
    """Returns what lies below the project's prefix in parts, by name; what is not ours is left out."""
    found = dict[str, Part]()
    prefix = f"{project()}/"
    for key, listed in storage.listing(prefix).items():
        inside = key.removeprefix(prefix)
        match = IN_INSTANCE.fullmatch(inside)
        if match or inside.startswith(DVC):
            name = match["place"].rstrip("/") if match else inside
            found.setdefault(name, Part(name)).add(key, listed)
    return found


def needed_here(storage: Storage) -> Needs:
    """Returns what the parameters of this folder need, which may not be trained yet."""
    found = Needs()
    if not params.PARAMS.exists() or not paths.DIGEST.exists():  # nothing has begun
        return found
    study = params.load()
    data = json.loads(paths.DIGEST.read_text())["digest"]
    wanted = Wanted(study, data, storage, place_of(study, storage))
    for name, row in study.models.items():
        if Path(row.schedule).exists():  # else its search has not ended
            training = wanted.training(name)
            found.trainings.add((training.key, training.instance))
    found.searches.update(wanted.search(name).key for name in study.tune)
    return found


def all_needs(storage: Storage) -> Needs:
    """Returns what all clones and their branches, tags and folders need."""
    there, _ = clones.known()
    documents = (chain(needed.in_git(clone), needed.in_folder(clone)) for clone in there)
    found, here = Needs.of(chain.from_iterable(documents)), needed_here(storage)
    found.trainings.update(here.trainings)
    found.searches.update(here.searches)
    return found


def waiting(needs: Needs, parts: dict[str, Part], storage: Storage) -> dict[str, str]:
    """Returns what nobody names but somebody may wait for, by the names of its parts, each with why.

    It may be of a clone that is not known here, or of other code. Adds to `needs` the data that such
    trainings go on with.
    """
    found = dict[str, str]()
    for name, part in parts.items():
        kind, key, *rest = name.split("/")
        if key.startswith(MEASURING):  # nobody waits for it
            continue
        if kind == TRAININGS and (key, int(rest[0])) not in needs.trainings:
            try:
                facts = CheckpointStore(storage, key, instance=int(rest[0])).facts()
            except CheckpointError:
                found[name] = "not in this code's format"
                continue
            if facts is None or (facts.is_finished and part.is_collected):
                continue
            at = f"at update {facts.update:,} of {facts.total_updates:,}"
            found[name] = f"{facts.name}, " + ("not collected" if facts.is_finished else at)
            needs.data.add(facts.trained["data"])
            if "crop_px" in facts.trained["row"]["augmentation"]:  # perhaps of photographs
                needs.packings.add(ANY)
        elif kind == SEARCHES and key not in needs.searches:
            manifest = Instance(storage, SEARCHES, key, int(rest[0])).manifest(ALL)
            if manifest and not manifest[0].get("done", True):
                found[name] = "a search that is not at its end"
            elif manifest and not part.is_collected:
                found[name] = "a search that nobody has collected"
    return found


def places_of(
    needs: Needs, waits: Collection[str], parts: Collection[str], storage: Storage
) -> set[str]:
    """Returns the names of the parts that are needed, and of those that are waited for."""
    found = {f"{TRAININGS}/{key}/{number}" for key, number in needs.trainings}
    found |= {f"{DATA_SETS}/{digest}/1" for digest in needs.data}
    for name in parts:
        kind, key, *rest = name.split("/")
        if name in waits or (kind == SHARDS and {key, ANY} & needs.packings):
            found.add(name)
        if kind == SEARCHES and (name in waits or key in needs.searches):
            manifest = Instance(storage, SEARCHES, key, int(rest[0])).manifest(ALL)
            trials = manifest[0].get("trials", ()) if manifest else ()
            found |= {name, *(f"{TRIALS}/{trial}/{rest[0]}" for trial in trials)}
    for md5 in needs.md5:
        found.add(dvc_key(md5))
        content = storage.get(f"{project()}/{dvc_key(md5)}") if md5.endswith(".dir") else None
        if content is not None and hashlib.md5(content).hexdigest() != md5.removesuffix(".dir"):
            raise StorageError(
                f"{dvc_key(md5)}: damaged, so what it names cannot be told from what nobody needs: `make fsck`"
            )
        found |= {dvc_key(one["md5"]) for one in json.loads(content or b"[]")}
    return found


def busy() -> set[str]:
    """Returns the keys that a process of this host or a job of the cluster works on."""
    found = set()
    for lock in lock_of("").glob("*"):
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            found.add(lock.name)
    there = cluster()
    return found | {job.key for job in (there.jobs() if there else ()) if job.is_alive}


def useless(storage: Storage, days: float) -> tuple[list[Part], dict[str, str]]:
    """Returns what nobody needs and nobody has written to for some days, sorted by name; and what is
    kept since somebody may wait for it (see `waiting`), if it is as old."""
    parts = parts_of(storage)
    at_work, needs = busy(), all_needs(storage)
    needs.searches.update(at_work)
    if at_work:  # what works says by which key, and not on which data
        needs.packings.add(ANY)
        needs.data.update(name.split("/")[1] for name in parts if name.startswith(f"{DATA_SETS}/"))
    waits = waiting(needs, parts, storage)
    kept = places_of(needs, waits, parts, storage)
    latest = time.time() - days * DAY_S
    old = {
        name: part
        for name, part in sorted(parts.items())
        if part.modified <= latest and f"{name}/".split("/")[1] not in at_work
    }
    of_nobody = [part for name, part in old.items() if name not in kept]
    return of_nobody, {name: waits[name] for name in old if name in waits}


def lines(found: list[Part], waits: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for what is kept, one for each kind, and one for each part that is not DVC's."""
    for name, why in waits.items():
        key = name.split("/")[1]
        yield f"kept: {name}: {why}: if nobody wants it, `make forget RUN={key}` deletes it"
    kinds = defaultdict[str, list[Part]](list)
    for part in found:
        kinds[part.name.split("/")[0]].append(part)
        if not part.name.startswith(DVC):
            days = (time.time() - part.modified) / DAY_S
            yield f"{part.name}: {part.bytes / 1e6:,.1f} MB, written {days:.1f} days ago"
    for kind, some in kinds.items():
        yield f"{kind}: {len(some):,} not needed, {sum(part.bytes for part in some) / 1e6:,.1f} MB"


def delete(part: Part, storage: Storage) -> int:
    """Deletes a part, unless somebody has begun to work on it; returns the number of objects deleted."""
    lock = lock_of(f"{part.name}/".split("/")[1])
    try:
        with FileLock(lock, timeout=0) if lock.exists() else nullcontext():
            now = storage.listing(f"{project()}/{part.name}")
            if any(one.modified > part.modified for one in now.values()):
                return 0
            # documents first, so that what is left of a part is never taken for whole
            storage.delete(*sorted(part.keys, key=lambda key: not key.endswith(".json")))
            return len(part.keys)
    except Timeout:
        return 0


def main(apply: str = "apply=", days: str = "days=") -> None:
    """Prints what nobody needs, and deletes it if asked to."""
    wanted = apply.removeprefix("apply=")
    if wanted not in ("", "1"):
        raise ParamsError(
            f"APPLY: found {wanted!r}, wanted 1, or nothing to be shown what nobody needs"
        )
    os.environ.pop(AGAIN, None)  # it begins nothing
    text = days.removeprefix("days=") or "7"
    try:
        age = float(text)
    except ValueError:
        raise ParamsError(f"DAYS: found {text!r}, wanted a number of days") from None
    storage, deletes = s3.connect(), wanted == "1"
    with exclusively(lock_of("gc"), "`make gc`"):
        there, gone = clones.known()
        for clone, noted in gone.items():
            why = f"{clone} was a clone and is not there: if it is gone for good, delete {noted}"
            if deletes:
                raise ResourceError(f"{why}, else bring it back: what it needs is unknown")
            print(f"warning: {why}", file=sys.stderr)
        for clone in there:
            try:
                needed.fetch(clone)
            except StudyError as error:
                if deletes:
                    raise
                print(f"warning: {error}", file=sys.stderr)
        found, waits = useless(storage, age)
        for line in lines(found, waits):
            print(line)
        if not found:
            print(f"everything is needed, or less than {age:g} days old (DAYS=)")
        elif not deletes:
            print("nothing was deleted: `make gc APPLY=1` deletes what is listed")
        if deletes and found:
            with Progress("gc", len(found), "parts") as progress:
                count = 0
                for part in found:
                    count += delete(part, storage)
                    progress.advance(1)
            print(f"deleted {count:,} objects")


if __name__ == "__main__":
    command.main(main)
