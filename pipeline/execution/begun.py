"""What was begun before: noted by this same `dvc repro`, or left unfinished by other code."""

import json
import os
from pathlib import Path
from typing import Any

from pipeline.command import occasion
from pipeline.environment import state_dir
from pipeline.errors import CheckpointError, TrainingError
from pipeline.files import write_json
from pipeline.storage.checkpoints import Before, CheckpointStore
from pipeline.storage.layout import SEARCHES, TRAININGS, TRIALS, Instance, Instances, project
from pipeline.storage.objects import Storage
from pipeline.training.identity import CONTINUE, KEY_LENGTH
from pipeline.training.training import Training
from pipeline.tuning.search import ALL, Search

MOST_LOCKS = 200
AGAIN = "STUDY_AGAIN"


def request() -> str:
    """Returns the name under which the environment requests the whole study afresh, or ''."""
    return os.environ.get(AGAIN, "")


def lock_of(key: str) -> Path:
    """Returns the file that a process here locks while it works on a key; the file stays afterwards."""
    return state_dir() / "locks" / key


def remember(key: str) -> None:
    """Leaves a key's file, as who locks it does, for a training that a cluster works on."""
    lock_of(key).parent.mkdir(parents=True, exist_ok=True)
    lock_of(key).touch()


def note(key: str, why: str | None) -> None:
    """Notes that this `dvc repro` has tried a training here, and why it failed, if it did."""
    write_json(_note_of(key), {"by": occasion(), "why": why})


def noted(key: str) -> dict[str, str | None] | None:
    """Returns what this same `dvc repro` has noted about a training, or None."""
    try:
        found: dict[str, str | None] = json.loads(_note_of(key).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if found.get("by") == occasion() else None


def refuse_a_second_try(key: str) -> None:
    """Raises TrainingError if a training has failed in the `handover` of this same `dvc repro`."""
    if (found := noted(key)) and found["why"]:
        raise TrainingError(f"{found['why']} (the next `dvc repro` tries again)")


def _note_of(key: str) -> Path:
    return state_dir() / "tried" / f"{key}.json"


# whose training a key is, as far as this process has seen: sixty rows would ask for two hundred keys each
_ROWS = dict[str, str]()


def refuse_training_left_behind(training: Training, storage: Storage) -> None:
    """Raises CheckpointError if other code began this same training here and has not finished it.

    It must not be lost without asking: a person decides whether to go on with it or to forget it.
    What this code has begun itself goes on.
    """
    if CheckpointStore.of(training, storage).facts() is not None:
        return
    there = {*storage.folders(f"{project()}/{TRAININGS}/"), *storage.folders(f"{TRAININGS}/")}
    for key in _keys_tried_here():
        is_others = _ROWS.get(key, training.name) != training.name
        if key == training.key or key not in there or is_others:
            continue
        if facts := CheckpointStore(storage, key).facts():
            _ROWS[key] = facts.name
        if facts and facts.name == training.name and training.is_of(facts):
            if facts.is_finished:
                continue
            raise CheckpointError(
                f"{training.name}: a training of this row, begun by other code, stands at update "
                f"{facts.update:,} of {facts.total_updates:,} (threads: {facts.threads}, key "
                f"{key}): `{CONTINUE}={training.name}={key} dvc repro` goes on with it, and "
                f"`make forget RUN={key}` deletes it"
            )


def refuse_search_left_behind(search: Search, storage: Storage) -> None:
    """Raises CheckpointError if other code began this row's search here and has not finished it.

    A search cannot go on with trials of other code.
    """
    mine = search.document()
    for key in _keys_tried_here():
        if key == search.key:
            continue
        left = any(
            not found["done"] and {name: found[name] for name in mine} == mine
            for found in _searches_of(key, storage)
        )
        if left or _was_left_before(key, search, storage):
            raise CheckpointError(
                f"tune: a search for this row, begun by other code, is unfinished (key {key}), and "
                f"this code cannot go on with it: `make forget RUN={key}` deletes it"
            )


def _was_left_before(key: str, search: Search, storage: Storage) -> bool:
    """Tells whether an unfinished search for this row dates from before there were instances."""
    for name in storage.keys(f"searches/{key}/"):
        content = storage.get(name)
        if content is None or json.loads(content)["status"] != "running":
            continue
        if (facts := Before(storage, Path(name).stem).facts()) and search.is_of(facts):
            return True
    return False


def _searches_of(key: str, storage: Storage) -> list[dict[str, Any]]:
    """Returns the facts that the instances of a search have about it."""
    numbers = Instances(storage, SEARCHES, key).numbers()
    found = (Instance(storage, SEARCHES, key, number).manifest(ALL) for number in numbers)
    return [manifest[0] for manifest in found if manifest]


def forget(key: str, storage: Storage) -> int:
    """Forgets a training or a search; returns how many objects were deleted."""
    trials = [trial for search in _searches_of(key, storage) for trial in search["trials"]]
    count = sum(
        Instances(storage, kind, some).forget()
        for kind, some in [(TRAININGS, key), (SEARCHES, key), *((TRIALS, key) for key in trials)]
    )
    # objects in the layout from before there were instances
    old = storage.keys(f"searches/{key}/")
    some = [Path(name).stem for name in old]
    names = [name for one in (key, *some) for name in storage.keys(f"trainings/{one}/")] + old
    storage.delete(*sorted(names, key=lambda name: not name.endswith(".json")))
    lock_of(key).unlink(missing_ok=True)
    return count + len(names)


def _keys_tried_here() -> list[str]:
    """Returns the keys of the trainings and searches that were begun on this machine, newest first."""
    locks = [path for path in lock_of("").glob("*") if len(path.name) == KEY_LENGTH]
    return [
        path.name for path in sorted(locks, key=lambda path: -path.stat().st_mtime)[:MOST_LOCKS]
    ]
