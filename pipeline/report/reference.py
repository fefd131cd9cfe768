"""Compares a study with a reference: the same networks, trained with several seeds by somebody else.

MLPerf's check of reference convergence points compares a submission's runs with reference runs by Student's
t and refuses at p = 0.005; so does this, over all comparisons together (Holm). What does not depend on chance
must be equal. A network is compared with the reference's runs on hardware of its own kind, if these are of three
seeds or more, else with those on any, where a seed counts once. That the same seed ends with the same bits is to be
expected on one kind alone, and is said of each training that the reference has on it.
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
from pipeline.params import canonical_sha256
from pipeline.report.claims.inference import holm

Results = Mapping[str, Any]
ENSEMBLE = "ensemble"
LEAST_NLL = 1e-9  # a network that is sure of every image has none that is measured
FACTS = ("seed", "hardware", "torch", "weights_sha256")
ALPHA = 0.005
LEAST_OF_A_KIND = 3  # seeds on one kind of hardware
FOLDER = Path("reference")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Rule:
    """How a metric is compared: the difference of its seeds' means by a test, their ratio by one, or it must be equal."""

    metric: str
    kind: Literal["difference", "ratio", "equal"]


RULES = (
    *(Rule(f"{split}_error_pct", "difference") for split in SPLITS),
    *(Rule(f"{split}_nll", "ratio") for split in SPLITS),  # wrong probabilities of right classes
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
    return {
        "study": first["study"],
        "data_digest": first["data"]["digest"],
        "images": first["data"]["images"],
        "sources": sorted({str(row["source"]) for report in reports for row in report["rows"]}),
        "networks": _networks(reports),
    }


def _networks(reports: Sequence[Results]) -> dict[str, Any]:
    """Returns the runs of each network, by the digest of its recipe; a declared ensemble counts as one."""
    found: dict[str, Any] = {}
    for report in reports:
        rows = {row["name"]: row for row in report["rows"]}
        every = [(row["group"], row["name"], [row], row["scores"]) for row in rows.values()]
        if together := report["ensemble"]:
            members = [rows[name] for name in together["declared"]["members"]]
            of = canonical_sha256(sorted(row["group"] for row in members))[:16]
            every.append((f"{ENSEMBLE} {of}", ENSEMBLE, members, together["declared"]))
        for group, name, trained, scores in every:
            seen = found.setdefault(group, {"name": name, "runs": []})
            facts = {fact: _together([row[fact] for row in trained]) for fact in FACTS}
            run = {
                **facts,
                **{rule.metric: scores[rule.metric] for rule in RULES if rule.metric in scores},
            }
            if run not in seen["runs"]:
                seen["runs"].append(run)
    return found


def _together(facts: Sequence[Any]) -> Any:
    """Returns what some trainings have in common, or what each of them has."""
    return facts[0] if len({*facts}) == 1 else list(facts)


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
    found, same, again, unmatched = list[Compared](), 0, 0, list[str]()
    left = dict(reference["networks"])
    for group, ours in _networks([results]).items():
        name, runs = ours["name"], ours["runs"]
        theirs = left.pop(group, None)
        if theirs is None:
            unmatched.append(f"{name} (only here)")
            continue
        like = _once_a_seed(theirs["runs"], runs[0]["hardware"])
        seeds = {str(run["seed"]) for run in runs}
        # the same seeds are the same sample, if others are left
        like = (
            others if len(others := [o for o in like if str(o["seed"]) not in seeds]) > 1 else like
        )
        of_a_kind = [run for run in like if run["hardware"] == runs[0]["hardware"]]
        like = of_a_kind if len(of_a_kind) >= LEAST_OF_A_KIND else like
        for rule in RULES:
            if any(rule.metric not in run for run in (*runs, *like)):
                continue  # an ensemble's, or an earlier reference's
            mine, other = ([run[rule.metric] for run in some] for some in (runs, like))
            images = reference["images"].get(rule.metric.removesuffix("_error_pct"), 0)
            found.append(_compared(name, rule, mine, other, images))
        for run in runs if name != ENSEMBLE else ():
            bits = [
                one["weights_sha256"]
                for one in theirs["runs"]
                if all(one[fact] == run[fact] for fact in ("seed", "hardware", "torch"))
            ]
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
        f"{len(lines)} comparisons with {called}, {differ} differ. Errors, and negative "
        "log-likelihoods by their ratio: Student's t over seeds, at "
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
    found: dict[str, Results] = {}
    for run in sorted(runs, key=lambda run: bool(run["hardware"] != hardware)):
        found.setdefault(str(run["seed"]), run)
    return list(found.values())


def _compared(
    network: str, rule: Rule, mine: Sequence[float], other: Sequence[float], images: int
) -> Compared:
    ours, theirs = float(np.mean(mine)), float(np.mean(other))
    p, differs = None, False
    match rule.kind:
        case "difference":
            p = p_value(mine, other, images)
        case "ratio" if len(mine) + len(other) > 2:  # else nothing tells how much it varies
            p = student(_logarithms(mine), _logarithms(other))
        case "ratio":
            pass
        case "equal":
            differs = {*mine} != {*other}
            # a count, and not the mean of counts
            ours, theirs = (
                mine[0] if len({*mine}) == 1 else ours,
                other[0] if len({*other}) == 1 else theirs,
            )
    return Compared(network, rule.metric, ours, len(mine), theirs, len(other), p, differs)


def _logarithms(values: Sequence[float]) -> list[float]:
    return [math.log(max(value, LEAST_NLL)) for value in values]


def p_value(mine: Sequence[float], other: Sequence[float], images: int) -> float:
    """Returns the p-value of two sets of errors in percent having one mean (Student's t over seeds).

    A standard deviation is at least half an image, since errors are counts. Two single seeds are compared
    on the images, as if these were different ones.
    """
    least = 50 / images
    if len(mine) + len(other) > 2:
        return student(mine, other, least)
    share = (mine[0] + other[0]) / 200
    sd = max(100 * math.sqrt(share * (1 - share) / images), least)
    return float(2 * stats.norm.sf(abs(mine[0] - other[0]) / (sd * math.sqrt(2))))


def student(mine: Sequence[float], other: Sequence[float], least: float = 1e-9) -> float:
    """Returns the p-value of two sets of values, three or more in all, having one mean (Student 1908).

    The standard deviation is at least `least`.
    """
    n, m = len(mine), len(other)
    gap = abs(float(np.mean(mine)) - float(np.mean(other)))
    squares = sum(float(np.var(some)) * len(some) for some in (mine, other))
    sd = max(math.sqrt(squares / (n + m - 2)), least)
    return float(2 * stats.t.sf(gap / (sd * math.sqrt(1 / n + 1 / m)), n + m - 2))
