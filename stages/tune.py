"""Stage `tune`: Ray Tune searches a learning-rate schedule on the validation split."""

import csv
import io
from pathlib import Path

from ruamel.yaml import YAML

from infra.local import s3
from pipeline import params
from pipeline.cluster.tune import Search
from pipeline.data import arrays
from pipeline.files import write
from pipeline.tracking.publish import tolerant
from stages import stage, tracked, where
from stages.where import ARRAYS


def main() -> None:
    """Searches, writes the chosen schedule and the table of all trials, publishes both."""
    study = params.load()
    storage, data = s3.connect(), arrays.load(ARRAYS)
    row = params.row_of(study, study.tune.model)
    search = Search(study.tune, row, ARRAYS, data.digest, storage)
    with where.alone(search.key, "this search"):
        if stage.is_forced() and where.may_begin_afresh(search.key, "the search"):
            search.clear()
        if not search.is_done:
            if not search.trials():
                where.refuse_a_search_left_behind(search, data.digest, storage)
            where.run_search(study, search, data.digest, storage)
    trials = search.best()

    schedule, table = io.StringIO(), io.StringIO()
    YAML().dump(trials[0].schedule.model_dump(mode="json"), schedule)
    lines = [search.line(trial) for trial in trials]
    writer = csv.DictWriter(table, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write(Path("tuned/trials.csv"), table.getvalue())
    write(Path("tuned/schedule.yaml"), schedule.getvalue())
    with tolerant():
        tracked.search_result(tracked.tracker_of(study), study.tune.model)
    print(f"chosen of {len(trials)} trials: {trials[0].schedule!r}")


if __name__ == "__main__":
    stage.main(main)
