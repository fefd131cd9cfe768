"""Compares a study with a reference: the same networks, trained with several seeds by somebody else.

MLPerf's check of reference convergence points compares a submission's runs with reference runs by Student's
t and refuses at p = 0.005; so does this, over all comparisons together (Holm). What does not depend on chance
must be equal.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from pipeline.errors import DataError
from pipeline.report.claims.inference import holm

Results = Mapping[str, Any]
ALPHA = 0.005
FOLDER = Path("reference")
ERRORS = ("train_error_pct", "val_error_pct", "test_error_pct")


@dataclass(frozen=True)
class Rule:
    """How a metric is compared: its seeds' mean by a test, or it must be equal."""

    metric: str
    kind: Literal["test", "equal"]


RULES = (
    *(Rule(name, "test") for name in ERRORS),
    Rule("parameters", "equal"),
    Rule("multiply_adds", "equal"),
    Rule("updates", "equal"),
)


@dataclass(frozen=True)
class Compared:
    """One metric of one network beside the reference's: means, seeds, p (null: not tested), and the verdict."""

    network: str
    metric: str
    ours: float
    seeds: int
    reference: float
    reference_seeds: int
    p: float | None
    differs: bool


def path_of(study: str) -> Path:
    """Returns where the committed reference of a study is."""
    return FOLDER / f"{study}.json"


def reference_of(reports: Sequence[Results]) -> dict[str, Any]:
    """Returns the reference that some reports of one study make: each network's scores by seed.

    Raises DataError if they are of different studies or data.
    """
    first = reports[0]
    for other in reports[1:]:
        if (other["study"], other["data"]["digest"]) != (first["study"], first["data"]["digest"]):
            raise DataError(
                f"a reference is of one study and its data: {first['study']} on "
                f"{first['data']['digest'][:12]}, and {other['study']} on {other['data']['digest'][:12]}"
            )
    networks: dict[str, Any] = {}
    for report in reports:
        for row in report["rows"]:
            seen = networks.setdefault(row["group"], {"name": row["name"], "runs": []})
            run = {"seed": row["seed"], "hardware": row["hardware"], "torch": row["torch"],
                   "weights_sha256": row["weights_sha256"],
                   **{rule.metric: row["scores"][rule.metric] for rule in RULES}}  # fmt: skip
            if run not in seen["runs"]:
                seen["runs"].append(run)
    return {
        "study": first["study"],
        "data_digest": first["data"]["digest"],
        "images": first["data"]["images"],
        "sources": sorted({str(row["source"]) for report in reports for row in report["rows"]}),
        "networks": networks,
    }


def load(path: Path) -> dict[str, Any]:
    """Returns a reference: a committed one, or what the report.json of a study makes.

    Raises DataError if there is none.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if "networks" in found else reference_of([found])
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found, wanted a reference or another study's report.json: "
            "`make verify AGAINST=<path>`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: neither a reference nor a report.json ({error!r})") from None


def compare(
    results: Results, reference: Mapping[str, Any], called: str = "the reference"
) -> dict[str, Any]:
    """Returns the comparison of a study's networks with those of a reference that has the same recipes.

    `unmatched` are the networks that only one of the two has under its recipe: they are not compared. Raises
    DataError if they are of different data, or have no network in common.
    """
    if results["data"]["digest"] != reference["data_digest"]:
        raise DataError(
            f"this study's data are {results['data']['digest'][:12]}, the reference's "
            f"{reference['data_digest'][:12]}: nothing to compare"
        )
    rows = {row["name"]: row for row in results["rows"]}
    found, same, again, unmatched = list[Compared](), 0, 0, list[str]()
    left = dict(reference["networks"])
    for group in results["groups"]:
        runs = [rows[name] for name in group["rows"]]
        theirs = left.pop(runs[0]["group"], None)
        if theirs is None:
            unmatched.append(f"{group['name']} (only here)")
            continue
        like = _once_a_seed(theirs["runs"], runs[0]["hardware"])
        for rule in RULES:
            mine = [float(run["scores"][rule.metric]) for run in runs]
            other = [float(run[rule.metric]) for run in like]
            images = reference["images"].get(rule.metric.removesuffix("_error_pct"), 0)
            found.append(_compared(group["name"], rule, mine, other, images))
        for run in runs:
            bits = {
                one["weights_sha256"]
                for one in theirs["runs"]
                if (one["seed"], one["hardware"], one["torch"])
                == (run["seed"], run["hardware"], run["torch"])
            }
            again += bool(bits)
            same += run["weights_sha256"] in bits
    unmatched += [f"{one['name']} (only in the reference)" for one in left.values()]
    if not found:
        raise DataError("the reference has none of this study's networks under the same recipe")
    tested = [one for one in found if one.p is not None]
    rejected = holm([one.p for one in tested if one.p is not None], ALPHA)
    failed = {id(one) for one, bad in zip(tested, rejected, strict=True) if bad}
    lines = [{**asdict(one), "differs": one.differs or id(one) in failed} for one in found]
    differ = sum(bool(line["differs"]) for line in lines)
    said = (
        f"{len(lines)} comparisons with {called}, {differ} differ. Errors: Student's t over seeds, at "
        f"p = {ALPHA} over all together (Holm); the others must be equal."
    )
    if again:
        said += (
            f" Of {again} trainings that {called} has with the same seed, hardware and torch, {same} "
            "ended with the same bits."
        )
    if unmatched:
        said += (
            f" Not compared, since only one of the two has such a network: {', '.join(unmatched)}."
        )
    return {
        "said": said, "lines": lines, "differ": differ, "again": again, "same": same, "unmatched": unmatched,
    }  # fmt: skip


def _once_a_seed(runs: Sequence[Results], hardware: str) -> list[Results]:
    """Returns one run a seed, that of the same hardware where there is one: others are no further sample."""
    found: dict[int, Results] = {}
    for run in sorted(runs, key=lambda run: bool(run["hardware"] != hardware)):
        found.setdefault(run["seed"], run)
    return list(found.values())


def _compared(
    network: str, rule: Rule, mine: Sequence[float], other: Sequence[float], images: int
) -> Compared:
    ours, theirs = float(np.mean(mine)), float(np.mean(other))
    p, differs = None, False
    match rule.kind:
        case "test":
            p = p_value(mine, other, images)
        case "equal":
            differs = {*mine} != {*other}
    return Compared(network, rule.metric, ours, len(mine), theirs, len(other), p, differs)


def p_value(mine: Sequence[float], other: Sequence[float], images: int) -> float:
    """Returns the p-value of two sets of errors in percent having one mean (Student's t over seeds).

    A standard deviation is at least half an image, since errors are counts. Two single seeds are compared
    on the images, as if these were different ones.
    """
    n, m = len(mine), len(other)
    gap = abs(float(np.mean(mine)) - float(np.mean(other)))
    least = 50 / images
    if n + m > 2:
        squares = sum(float(np.var(some)) * len(some) for some in (mine, other))
        sd = max(math.sqrt(squares / (n + m - 2)), least)
        return float(2 * stats.t.sf(gap / (sd * math.sqrt(1 / n + 1 / m)), n + m - 2))
    share = (mine[0] + other[0]) / 200
    sd = max(100 * math.sqrt(share * (1 - share) / images), least)
    return float(2 * stats.norm.sf(gap / (sd * math.sqrt(2))))
