"""`python damages.py ROW COUNT`, in a study's folder: damages a finished training on S3, and collects it.

After each damage the stage `train` must end with the result as it was, or with an error of ours and no result
at all; what it prints and what came of it is written as JSON lines. Run by test_failures.py.
"""

import contextlib
import io
import json
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, ".")

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


def main(name: str, count: int) -> None:
    """Damages and collects."""
    study, storage, moments = params.load(), s3.connect(), random.Random(5)
    data = prepared.look(paths.ARRAYS).digest
    training = Wanted(study, data, storage, place_of(study, storage)).training(name)
    prefix = Instance(storage, TRAININGS, training.key, training.instance).prefix
    whole = {key: storage.get(key) or b"" for key in storage.keys(prefix)}
    with Path("damages.jsonl").open("w") as out:
        for _ in range(count):
            done = [damage(storage, moments.choice(sorted(whole)), moments) for _ in range(2)]
            shutil.rmtree(paths.run(name), ignore_errors=True)
            said, error = io.StringIO(), None
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                try:
                    train.main(name)
                except StudyError as failure:
                    error = str(failure)
            there = (paths.run(name) / "model.json").exists()
            out.write(
                json.dumps(
                    {
                        "damages": done,
                        "said": said.getvalue(),
                        "error": error,
                        "there": there,
                        "sha256": json.loads((paths.run(name) / "model.json").read_text())["sha256"]
                        if there
                        else None,
                        "history": (paths.run(name) / "history.csv").read_text() if there else None,
                    }
                )
                + "\n"
            )
            restore(storage, prefix, whole)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
