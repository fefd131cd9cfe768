"""Damages a finished training on S3, and collects it, in a study's folder.

After each damage the stage `train` must end with the result as it was, or with an error of ours and no result
at all.
"""

import contextlib
import io
import json
import random
import shutil
from typing import Any

from infra.local import s3
from pipeline import params, paths
from pipeline.data import prepared
from pipeline.errors import StudyError
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.storage.layout import TRAININGS, Instance
from pipeline.storage.objects import Storage
from stages import train


def restore(storage: Storage, prefix: str, whole: dict[str, bytes]) -> None:
    """Puts an instance back as it was."""
    for key in storage.keys(prefix):
        if key not in whole:
            storage.delete(key)
    for key, content in whole.items():
        storage.put(key, content)


def damage(storage: Storage, key: str, moments: random.Random) -> str:
    """Flips a bit of an object, cuts it or deletes it; returns what was done."""
    content = bytearray(storage.get(key) or b"?")
    how = moments.choice(("flip", "cut", "delete"))
    place = moments.randrange(len(content))
    if how == "delete":
        storage.delete(key)
    else:
        content[place] ^= 1 << moments.randrange(8)
        storage.put(key, bytes(content[:place] if how == "cut" else content))
    return f"{how} {key.rpartition('/')[0].rpartition('/')[2]}"


def collected(name: str, count: int) -> list[dict[str, Any]]:
    """Damages and collects `count` times; returns what was done each time, what was said and what came of it."""
    study, storage, moments = params.load(), s3.connect(), random.Random(5)
    data = prepared.look(paths.ARRAYS).digest
    training = Wanted(study, data, storage, place_of(study, storage)).training(name)
    prefix = Instance(storage, TRAININGS, training.key, training.instance).prefix
    whole = {key: storage.get(key) or b"" for key in storage.keys(prefix)}
    found = []
    for _ in range(count):
        done = [damage(storage, moments.choice(sorted(whole)), moments) for _ in range(2)]
        shutil.rmtree(paths.run(name), ignore_errors=True)
        said, error = io.StringIO(), None
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                train.main(name)
            except StudyError as failure:
                error = str(failure)
        facts = paths.run(name) / paths.FACTS
        found.append({
            "damages": done, "said": said.getvalue(), "error": error, "there": facts.exists(),
            "sha256": json.loads(facts.read_text())["sha256"] if facts.exists() else None,
            "history": (paths.run(name) / "history.csv").read_text() if facts.exists() else None,
        })  # fmt: skip
        restore(storage, prefix, whole)
    return found
