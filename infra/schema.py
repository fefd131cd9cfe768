"""Writes docs/schema/*.json from the types, so that editors can complete and check the YAML files."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.params import Study
from pipeline.report.document import Report
from pipeline.training.schedule import Schedule

FOLDER = Path("docs/schema")


def schemas() -> dict[str, str]:
    """Returns the text of each schema by file name."""
    kinds: dict[str, Any] = {"params.json": Study, "schedule.json": Schedule, "report.json": Report}
    return {
        name: json.dumps(TypeAdapter(kind).json_schema(), indent=1) + "\n"
        for name, kind in kinds.items()
    }


if __name__ == "__main__":
    for file, text in schemas().items():
        if "--check" in sys.argv:
            if (FOLDER / file).read_text() != text:
                sys.exit(f"error: {FOLDER / file} is not what the types say: run `make schema`")
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / file).write_text(text)
