"""`make again RUN=<row, tune@search or prepare>`: begins a new instance of what is named, and nothing else.

Earlier instances stay on S3. DVC then runs that stage alone and, for a row, its evaluation; `dvc repro`
brings the rest up to date.
"""

import subprocess
import sys
import uuid
from pathlib import Path

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.errors import ParamsError
from pipeline.execution.needed import while_dvc_waits
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.params import Sharded, Study
from pipeline.storage.layout import SEARCHES, SHARDS, TRAININGS, Instances

PREPARE = "prepare"


def what_is(wanted: Wanted, name: str) -> tuple[str, str, list[str]]:
    """Returns the kind and the key of what a user names, and the stages that bring it up to date."""
    study = wanted.study
    if name in study.models:
        return TRAININGS, wanted.training(name).key, [f"train@{name}", f"evaluate@{name}"]
    stage, _, search = name.partition("@")
    if stage == "tune" and search in study.tune:
        return SEARCHES, wanted.search(search).key, [name]
    known = ", ".join((*study.models, *(f"tune@{search}" for search in study.tune), PREPARE))
    raise ParamsError(f"RUN={name}: wanted a row, a search or {PREPARE}: {known}")


def packing_of(study: Study) -> tuple[str, str, list[str]]:
    """Returns the same for the data set's packing; raises ParamsError if it is not packed."""
    if not isinstance(study.data, Sharded):
        raise ParamsError(
            f"RUN={PREPARE}: data of kind {study.data.kind} are not packed: use `dvc repro -f {PREPARE}`"
        )
    from pipeline.execution import photographs

    return SHARDS, photographs.key_of(study.data), [PREPARE]


def main(name: str = "") -> None:
    """Begins the new instance, and runs its stages."""
    study, storage = params.load(), s3.connect()
    place = place_of(study, storage)
    if name == PREPARE:
        kind, key, targets = packing_of(study)
    else:
        data = prepared.look(paths.ARRAYS).digest
        kind, key, targets = what_is(Wanted(study, data, storage, place), name)
    with place.only_one(key, name), while_dvc_waits(Path()):  # else `dvc repro` below is refused
        request = uuid.uuid4().hex
        place.require_idle(key, request)
        number = Instances(storage, kind, key).begin(request)
    print(
        f"{name}: instance {number} of {key} begins; what was there before stays on S3", flush=True
    )
    repro = [sys.executable, "-m", "dvc", "repro", "--single-item"]
    for stage in ([*repro, "--force", targets[0]], *([*repro, target] for target in targets[1:])):
        if status := subprocess.run(stage, check=False).returncode:
            sys.exit(status)
    print("`dvc repro` brings what depends on it up to date", flush=True)


if __name__ == "__main__":
    command.main(main)
