"""`make again RUN=<row, tune@search or prepare>`: begins a new instance of what is named, and nothing else.

What was there stays on S3 under its own instance. The stage is then run by DVC alone, with the evaluation
of a row; `dvc repro` brings the rest up to date.
"""

import subprocess
import sys
import uuid

from infra.local import s3
from pipeline import params
from pipeline.data import prepared
from pipeline.errors import ParamsError
from pipeline.params import Sharded, Study
from pipeline.storage.layout import SEARCHES, SHARDS, TRAININGS, Instances
from pipeline.storage.s3 import Storage
from stages import stage, where

PREPARE = "prepare"


def what_is(study: Study, name: str, storage: Storage) -> tuple[str, str, list[str]]:
    """Returns the kind and the key of what a user names, and the stages that bring it up to date."""
    if name == PREPARE:
        if not isinstance(study.data, Sharded):
            raise ParamsError(
                f"RUN={PREPARE}: data of kind {study.data.kind} are not packed: `dvc repro -f {PREPARE}`"
            )
        from stages import pack

        return SHARDS, pack.key_of(study.data), [PREPARE]
    digest = prepared.look(where.ARRAYS).digest
    if name in study.models:
        job, _ = where.job_of(study, name, digest, storage)
        return TRAININGS, job.key, [f"train@{name}", f"evaluate@{name}"]
    stage_name, _, search = name.partition("@")
    if stage_name == "tune" and search in study.tune:
        return SEARCHES, where.search_named(study, search, digest, storage).key, [name]
    known = ", ".join((*study.models, *(f"tune@{search}" for search in study.tune), PREPARE))
    raise ParamsError(f"RUN={name}: wanted a row, a search or {PREPARE}: {known}")


def main(name: str = "") -> None:
    """Begins it, and runs its stages."""
    study, storage = params.load(), s3.connect()
    kind, key, targets = what_is(study, name, storage)
    with where.alone(key, name):
        if there := where.cluster():
            where.require_none_alive(there, key)
        number = Instances(storage, kind, key).begin(uuid.uuid4().hex)
    print(
        f"{name}: instance {number} of {key} begins; what was there before stays on S3", flush=True
    )
    repro = [sys.executable, "-m", "dvc", "repro", "--single-item"]
    for command in ([*repro, "--force", targets[0]], *([*repro, target] for target in targets[1:])):
        if status := subprocess.run(command, check=False).returncode:
            sys.exit(status)
    print("`dvc repro` brings what depends on it up to date", flush=True)


if __name__ == "__main__":
    stage.main(main)
