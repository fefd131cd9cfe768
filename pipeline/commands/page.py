"""`make page [FROM=<report.json>] [AGAINST=<report.json>]`: the page of a study whose report.json is at hand.

By default this study's; beside it stands the comparison with another one, such as a stranger's rerun or a
reference. It lacks what is not in the file: the pictures of the images that all members of the ensemble get wrong, and the
tables as CSV.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from pipeline import command, paths
from pipeline.errors import DataError
from pipeline.files import write
from pipeline.report import page, reference
from pipeline.report.document import REPORT


def main(source: str = "", against: str = "") -> None:
    """Writes report/other.html."""
    path = Path(source or paths.REPORT)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        REPORT.validate_python(results)
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found") from error
    except (ValueError, ValidationError) as error:
        raise DataError(
            f"{path}: not a report in this code's format: {str(error).splitlines()[0]}: `dvc repro report` "
            "in its study writes it anew"
        ) from error
    if against:
        there = reference.load(Path(against))
        results["reference"] = reference.compare(results, there, against)
    write(paths.OTHER_PAGE, page.render(results, beside=False))
    print(paths.OTHER_PAGE.resolve())


if __name__ == "__main__":
    command.main(main)
