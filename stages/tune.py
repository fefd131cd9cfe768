"""Stage `tune`: the named search for a learning-rate schedule, judged on the validation split."""

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data import prepared
from pipeline.execution.bringing import searched
from pipeline.execution.place import place_of
from pipeline.execution.wanted import Wanted
from pipeline.files import write
from pipeline.formats import as_csv, as_yaml


def main(name: str) -> None:
    """Searches, writes the chosen schedule, the table of all trials and their curves."""
    study, data = params.load(), prepared.look(paths.ARRAYS)
    with s3.kept() as storage:
        place = place_of(study, storage)
        search = Wanted(study, data.digest, storage, place).search(name)
        collected = searched(name, search, place, storage)
    if collected:
        print(f"{name}: already searched (key {search.key}): collected", flush=True)
    trials = search.placed()
    curves = [line for place in trials for line in search.curve(place)]
    write(paths.trial_curves(name), as_csv(curves))
    write(paths.trials(name), as_csv([search.line(place) for place in trials]))
    write(paths.chosen(name), as_yaml(trials[0].trial.schedule.model_dump(mode="json")))
    search.note_collected()
    print(f"chosen from {len(trials)} trials: {trials[0].trial.schedule!r}")


if __name__ == "__main__":
    command.stage(main, lambda name: params.searched(params.load(), name))
