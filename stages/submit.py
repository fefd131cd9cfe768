"""`make submit`: hands what can be handed over to the cluster, and returns.

For a login node: the search, if the study wants one that is not done, and every training whose
schedule is there. Those that wait for the search are named; `make submit` again, or `dvc repro`,
hands them over when it is done.
"""

import csv
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.data import prepared
from pipeline.errors import ResourceError
from stages import stage, where


def main() -> None:
    """Submits the search and the trainings that need not wait for it."""
    there, study = where.cluster(), params.load()
    if there is None:
        raise ResourceError("RAY_ADDRESS is not set: there is no cluster to hand the study to")
    data, storage = prepared.look(where.ARRAYS), s3.connect()
    rows, undone = list(study.models), set()
    for name in study.tune:
        search = where.search_named(study, name, data.digest, storage)
        if search.key == _searched(name):
            continue
        undone.add(name)
        if search.is_done:
            print(f"the search {name} is done: `dvc repro` writes its schedule")
        else:
            where.make_ready(there, data.digest, storage)
            there.require_room(f"tune.{name}", 1, study.execution.share)
            job = there.ensure(where.search_of(study, name, search, data.digest))
            print(f"the search {name}: job {job.name}: {job.status}", flush=True)
    waiting = [name for name in rows if study.models[name].tuned_by in undone]
    ready = [name for name in rows if name not in waiting]
    where.hand_over(there, study, data.digest, storage, ready)
    if waiting:
        print(f"waiting for the search: {', '.join(waiting)}: `make submit` again, or `dvc repro`")
    print("`make jobs` lists the jobs; `dvc repro` collects them, today or later")


def _searched(name: str) -> str | None:
    """Returns the key of the search that tuned/<name> is of, or None."""
    table = Path(f"tuned/{name}.csv")
    if not table.exists() or not table.with_suffix(".yaml").exists():
        return None
    with table.open() as file:
        first = next(csv.DictReader(file), None)
    return first["search"] if first else None


if __name__ == "__main__":
    stage.main(main)
