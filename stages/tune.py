"""Stage `tune`: a search for a learning-rate schedule on the validation split, by its name."""

import csv
import io
from pathlib import Path

from ruamel.yaml import YAML

from infra.local import s3
from pipeline import params
from pipeline.data import prepared
from pipeline.files import write
from pipeline.tracking.publish import tolerant
from stages import stage, tracked, where


def main(name: str) -> None:
    """Searches, writes the chosen schedule and the table of all trials, publishes both."""
    study, storage, data = params.load(), s3.connect(), prepared.look(where.ARRAYS)
    search = where.search_named(study, name, data.digest, storage)
    with where.alone(search.key, "this search"):
        if not search.is_done:
            if not search.has_begun:
                where.refuse_a_search_left_behind(search, storage)
            where.run_search(study, name, search, data.digest, storage)
        else:
            print(f"{name}: already searched (key {search.key}): collected", flush=True)
    trials = search.placed()

    schedule, table = io.StringIO(), io.StringIO()
    YAML().dump(trials[0].trial.schedule.model_dump(mode="json"), schedule)
    lines = [search.line(place) for place in trials]
    writer = csv.DictWriter(table, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write(Path(f"tuned/{name}.csv"), table.getvalue())
    write(Path(f"tuned/{name}.yaml"), schedule.getvalue())
    with tolerant():
        tracked.search_result(tracked.tracker_of(study), name)
    print(f"chosen of {len(trials)} trials: {trials[0].trial.schedule!r}")


if __name__ == "__main__":
    stage.main(main)
