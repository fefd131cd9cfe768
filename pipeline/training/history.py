"""The history of a training, one line for each report: as CSV, and its digest."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from typing import Any

from pipeline.checkpoint import Record

TIMINGS = ("seconds", "train_images_per_s")
PARSERS: dict[str, Callable[[str], Any]] = {  # all others are floats
    "update": int, "precision": str, "threads": int,
}  # fmt: skip


def history_csv(history: Iterable[Record]) -> str:
    """Returns the history as CSV with full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Record))
    for record in history:
        writer.writerow(
            value if isinstance(value, str) else repr(value) for value in asdict(record).values()
        )
    return out.getvalue()


def parse_history_csv(text: str) -> list[Record]:
    """Returns the history that `history_csv` wrote."""
    return [
        Record(**{name: PARSERS.get(name, float)(value) for name, value in row.items()})
        for row in csv.DictReader(io.StringIO(text))
    ]


def history_digest(history: Iterable[Record]) -> str:
    """Returns the sha256 of the history without its timings."""
    lines = [
        {name: value for name, value in asdict(record).items() if name not in TIMINGS}
        for record in history
    ]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
