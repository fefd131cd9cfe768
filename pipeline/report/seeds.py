"""Rows that differ only in their seed are one group: mean, standard deviation, interval."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.special import stdtrit

from pipeline import params
from pipeline.params import canonical_sha256

Row = dict[str, Any]

SCORES = ("train_error_pct", "val_error_pct", "test_error_pct")
VIEWS = ("test_ten_crops_error_pct", "test_scales_error_pct")  # of photographs


def groups(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the groups in the order of their first rows, each named after its first row.

    Rows of a group have the same `group` (a row without its seed). Each score has `mean`, `sd` over
    seeds (n - 1; null for one seed) and `ci95`: for one seed the interval over images; for several
    it also includes the spread over seeds: to each side mean ± sqrt(h² + t² sd²/n), where h is how far the
    interval over images reaches there and t Student's with n - 1 degrees of freedom.
    """
    return [_group(members) for members in by_group(rows)]


def group_of(row: params.Row) -> str:
    """Returns what is equal for rows that differ only in their seed."""
    return canonical_sha256(row.model_dump(mode="json", exclude={"seed"}))[:16]


def by_group(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the rows that differ only in their seed together, in the order of the first ones."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row)
    return list(found.values())


def once_a_seed(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows but those that are a training of the same seed again."""
    return list({row["seed"]: row for row in reversed(rows)}.values())[::-1]


def _group(rows: list[Row]) -> dict[str, Any]:
    rows = once_a_seed(rows)
    first = rows[0]
    shared = (
        "name",
        "kind",
        "depth",
        "paper_test_error_pct",
    )
    return {
        **{name: first[name] for name in shared},
        "rows": [row["name"] for row in rows],
        "seeds": [row["seed"] for row in rows],
        "updates": first["scores"]["updates"],
        **{score: _summary(rows, score) for score in (*SCORES, *VIEWS) if score in first["scores"]},
    }


def _summary(rows: list[Row], score: str) -> dict[str, Any]:
    values = [row["scores"][score] for row in rows]
    intervals = [row["scores"][f"{score}_ci95"] for row in rows]
    if len(rows) == 1:
        return {"mean": values[0], "sd": None, "ci95": intervals[0]}
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    of_seeds = stdtrit(len(rows) - 1, 0.975) * sd / math.sqrt(len(rows))
    pairs = list(zip(values, intervals, strict=True))  # the images are the same for all seeds
    below = math.hypot(statistics.fmean(value - low for value, (low, _) in pairs), of_seeds)
    above = math.hypot(statistics.fmean(high - value for value, (_, high) in pairs), of_seeds)
    return {"mean": mean, "sd": sd, "ci95": [max(mean - below, 0.0), min(mean + above, 100.0)]}
