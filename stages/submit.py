"""`make submit`: hands what can be handed over to the cluster, and returns.

For a login node: the search, if the study wants one that is not done, and every training whose
schedule is there. Those that wait for the search are named; `make submit` again, or `dvc repro`,
hands them over when it is done.
"""

import csv
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.cluster.tune import Search
from pipeline.data import arrays
from pipeline.errors import ResourceError
from pipeline.params import TUNED_SCHEDULE
from stages import stage, where


def main() -> None:
    """Submits the search and the trainings that need not wait for it."""
    there, study = where.cluster(), params.load()
    if there is None:
        raise ResourceError("RAY_ADDRESS is not set: there is no cluster to hand the study to")
    data, storage = arrays.load(where.ARRAYS), s3.connect()
    row = params.row_of(study, study.tune.model)
    search = Search(study.tune, row, where.ARRAYS, data.digest, storage)
    rows, waiting = list(study.models), []
    if search.key != _searched():
        waiting = [name for name in rows if study.models[name].schedule == TUNED_SCHEDULE]
        if search.is_done:
            print("the search is done: `dvc repro` writes its schedule")
        else:
            where.make_ready(there, data.digest, storage)
            there.require_room("tune", 1, study.execution.share)
            job = there.ensure(where.search_of(study, search.key, data.digest))
            print(f"the search: job {job.name}: {job.status}", flush=True)
    ready = [name for name in rows if name not in waiting]
    where.hand_over(there, study, data.digest, storage, ready)
    if waiting:
        print(f"waiting for the search: {', '.join(waiting)}: `make submit` again, or `dvc repro`")
    print("`make jobs` lists the jobs; `dvc repro` collects them, today or later")


def _searched() -> str | None:
    """Returns the key of the search that tuned/ is of, or None."""
    table = Path("tuned/trials.csv")
    if not table.exists() or not Path(TUNED_SCHEDULE).exists():
        return None
    with table.open() as file:
        first = next(csv.DictReader(file), None)
    return first["search"] if first else None


if __name__ == "__main__":
    stage.main(main)
