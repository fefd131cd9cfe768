"""The history of a training: a line for each report, as CSV and by its digest."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.params import Precision

TIMINGS = ("seconds", "train_images_per_s")
PARSERS: dict[str, Callable[[str], Any]] = {  # all else is float
    "update": int, "precision": str, "threads": int,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One line of the history; training figures are means since the last line, on augmented images.

    `seconds` and `train_images_per_s` differ from run to run; all else is the same, bit for bit,
    however often a training was interrupted.
    """

    update: int
    epoch: float
    lr: float
    train_loss: float
    train_error_pct: float
    val_loss: float
    val_error_pct: float
    precision: Precision
    threads: int
    seconds: float
    train_images_per_s: float


def records_of(facts: dict[str, Any]) -> list[Record]:
    """Returns the history in a checkpoint's facts; lines of before they named their threads, too."""
    return [Record(**{"threads": facts["threads"], **record}) for record in facts["history"]]


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
