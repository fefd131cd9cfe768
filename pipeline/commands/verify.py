"""`make verify`: compares the study's report with a reference; fails if a network differs.

python -m pipeline.commands.verify [against=PATH]            a reference, or another study's report.json
python -m pipeline.commands.verify make PATH REPORT.json...  writes a reference from reports of one study
"""

import json
import sys
from pathlib import Path

from pipeline import command
from pipeline.files import write_json
from pipeline.report import reference
from pipeline.report.saving import saved
from pipeline.report.tables import against_reference


def main(*arguments: str) -> None:
    """Prints the comparison; exits with status 1 if something differs or could not be compared."""
    if arguments[:1] == ("make",):
        reports = [json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments[2:]]
        write_json(Path(arguments[1]), reference.reference_of(reports))
        return
    report = saved()
    named = "".join(arguments).removeprefix("against=")
    path = Path(named) if named else reference.path_of(report["study"])
    found = reference.compare(report, reference.load(path))
    for line in against_reference(found).plain():
        print(line)
    print(found["said"])
    if found["differ"]:
        sys.exit(f"error: {report['study']} differs from {path} in {found['differ']} comparisons")
    if found["unmatched"]:
        sys.exit(
            f"error: {report['study']} and {path} have {len(found['unmatched'])} networks that the other lacks "
            "under the same recipe: compare the same rows"
        )


if __name__ == "__main__":
    command.main(main)
