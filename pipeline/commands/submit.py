"""`make submit`: submits to the cluster what can be computed now, and returns.

For a login node: each search of the study that is not done, and every training whose schedule exists.
Trainings that wait for a search are listed; when it is done, `make submit` or `dvc repro` submits them.
"""

import csv

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.environment import CLUSTER
from pipeline.errors import ResourceError
from pipeline.execution.place import named_cluster
from pipeline.execution.wanted import Wanted


def main() -> None:
    """Submits the searches and the trainings that need not wait for them."""
    study, data, storage = params.load(), prepared.look(paths.ARRAYS), s3.connect()
    if (there := named_cluster(study, storage)) is None:
        raise ResourceError(f"{CLUSTER} is not set: there is no cluster to submit the study to")
    wanted = Wanted(study, data.digest, storage, there)
    rows, undone = list(study.models), set()
    for name in study.tune:
        search = wanted.search(name)
        if search.key == _searched(name):
            continue
        undone.add(name)
        if search.is_done:
            print(f"the search {name} is done: `dvc repro` writes its schedule")
        else:
            job = there.submit_search(name, search)
            print(f"the search {name}: job {job.name}: {job.status}", flush=True)
    waiting = [name for name in rows if study.models[name].tuned_by in undone]
    there.train_all(wanted.stale([name for name in rows if name not in waiting]))
    if waiting:
        print(f"waiting for a search: {', '.join(waiting)}: `make submit` again, or `dvc repro`")
    print("`make jobs` lists the jobs; `dvc repro` collects their results, now or later")


def _searched(name: str) -> str | None:
    """Returns the key of the search whose result is in tuned/<name>, or None."""
    table = paths.trials(name)
    if not table.exists() or not paths.chosen(name).exists():
        return None
    with table.open() as file:
        first = next(csv.DictReader(file), None)
    return first["search"] if first else None


if __name__ == "__main__":
    command.main(main)
