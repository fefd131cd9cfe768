"""Stage `tune`: the named search for a learning-rate schedule, judged on the validation split."""

import csv
import io

from ruamel.yaml import YAML

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.execution.bringing import searched
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.files import write
from pipeline.tracking import results
from pipeline.tracking.tracker import tolerant


def main(name: str) -> None:
    """Searches, writes the chosen schedule and the table of all trials, publishes both."""
    study, data, storage = params.load(), prepared.look(paths.ARRAYS), s3.connect()
    place = place_of(study, storage)
    search = Wanted(study, data.digest, storage, place).search(name)
    if searched(name, search, place, storage):
        print(f"{name}: already searched (key {search.key}): collected", flush=True)
    trials = search.placed()

    schedule, table = io.StringIO(), io.StringIO()
    YAML().dump(trials[0].trial.schedule.model_dump(mode="json"), schedule)
    lines = [search.line(place) for place in trials]
    writer = csv.DictWriter(table, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write(paths.trials(name), table.getvalue())
    write(paths.chosen(name), schedule.getvalue())
    with tolerant():
        results.search_result(results.tracker_of(study, storage), name, storage)
    print(f"chosen from {len(trials)} trials: {trials[0].trial.schedule!r}")


if __name__ == "__main__":
    command.main(main)
