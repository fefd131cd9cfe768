"""Stage `check`: judges the whole study before any work, in two seconds, and does nothing else.

It checks names, rows, schedules, and rows against the data if those are prepared (otherwise `prepare` does so), and
writes the digest of each stage's code and what names the archive. Editors and CI run `python -m stages.check`.
"""

import json

from pipeline import command, params, paths, source
from pipeline.data import fitting
from pipeline.data.sources.mirrors import mirrors, source_of
from pipeline.execution import judging
from pipeline.files import write, write_json
from pipeline.params import Study

STAGES = ("fetch", "prepare", "tune", "train", "evaluate", "ensemble", "report")
OURS = {"pipeline", "stages", "infra"}
# messages, locks and progress lines change no result
NO_RESULT = {
    "pipeline.attested",
    "pipeline.environment",
    "pipeline.errors",
    "pipeline.files",
    "pipeline.machine",
    "pipeline.progress",
    "pipeline.source",
}


def write_code_digests() -> None:
    """Writes for each stage the digest of the source that it needs; comments do not count."""
    for name in STAGES:
        code = source.needed(f"stages.{name}", packages=OURS, leave=NO_RESULT)
        write(paths.STATE / "code" / name, f"{source.digest(code)}\n")


def write_source(study: Study) -> None:
    """Writes what identifies the archive of the data."""
    try:
        before = json.loads(paths.SOURCE.read_text())
    except (FileNotFoundError, ValueError):
        before = {}
    write_json(paths.SOURCE, source_of(study.data, mirrors(), before))


def main() -> None:
    """Judges the study."""
    study = params.load()
    judging.require_schedules(study)
    judging.warn_of_equal_rows(study)
    judging.warn_of_precisions(study)
    judging.require_networks(study)
    fitting.require_if_prepared(study)
    write_code_digests()
    write_source(study)
    write(paths.STATE / "check", "checked\n")


if __name__ == "__main__":
    command.main(main)
