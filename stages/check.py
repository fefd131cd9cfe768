"""Stage `check`: the whole study is judged before any work, in two seconds; nothing else is done.

Names, rows, every schedule's file and the precision of this device; rows against the prepared data where
those are of this study (else `prepare` does so at its end). For each stage it writes the digest of the code
that this needs, on which it depends. Editors and CI run `python -m stages.check`.
"""

import os
from functools import partial
from pathlib import Path

from pipeline import command, params, paths, source
from pipeline.data import fitting
from pipeline.environment import CLUSTER
from pipeline.files import write
from pipeline.params import Study
from pipeline.training.schedule import load_schedule

STAGES = ("fetch", "prepare", "tune", "train", "evaluate", "ensemble", "report")
OURS = {"pipeline", "stages", "infra"}
# what a message, a lock or a progress line says changes no result
NO_RESULT = {
    "pipeline.attested",
    "pipeline.environment",
    "pipeline.errors",
    "pipeline.files",
    "pipeline.machine",
    "pipeline.progress",
    "pipeline.source",
}


def require_schedules(study: Study) -> None:
    """Raises ParamsError where a row's schedule is missing or none; what a search finds comes later."""
    rows: dict[str, list[str]] = {}
    for name, row in study.models.items():
        if row.tuned_by is None:
            rows.setdefault(row.schedule, []).append(name)

    def require(file: str) -> None:
        names = rows[file]
        load_schedule(Path(file), f"models.{names[0]}.schedule{params.also_in(names)}")

    params.together(partial(require, file) for file in rows)


def require_precisions(study: Study) -> None:
    """Raises ResourceError where this machine trains, and has not the arithmetic of a row."""
    if os.environ.get(CLUSTER):
        return  # each node says so itself
    for name, row in study.models.items():
        if row.precision != "float32":
            from pipeline.training.hardware import require  # torch

            require(row.precision, f"models.{name}.precision")


def write_code_digests() -> None:
    """Writes for each stage the digest of the source that it needs; no comment is in it."""
    for name in STAGES:
        code = source.needed(f"stages.{name}", packages=OURS, leave=NO_RESULT)
        write(paths.STATE / "code" / name, f"{source.digest(code)}\n")


def main() -> None:
    """Judges the study."""
    study = params.load()
    require_schedules(study)
    require_precisions(study)
    fitting.require_if_prepared(study)
    write_code_digests()
    write(paths.STATE / "check", "checked\n")


if __name__ == "__main__":
    command.main(main)
