"""Documents as text: YAML and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML


def as_yaml(document: Any) -> str:
    """Returns a document of dicts, lists and scalars as YAML 1.2."""
    out = io.StringIO()
    YAML().dump(document, out)
    return out.getvalue()


def as_csv(lines: Sequence[Mapping[str, Any]], *columns: str) -> str:
    """Returns lines as CSV with these columns, by default the first line's keys."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns or list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
