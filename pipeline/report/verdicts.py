"""The paper's claims on shallow and deep networks, each with a verdict and its evidence.

A verdict looks at intervals over images; with one seed a network it cannot speak of the spread
over seeds, and it says so. A deep plain network that stays near chance failed to train: at a small
budget that is not the paper's degradation, which is about networks that do converge (section 4.2).
"""

from collections.abc import Sequence
from typing import Any

NEAR_CHANCE = 0.8  # a training error above this share of chance's is "failed to train"

PAPER_UPDATES = 64_000  # section 4.2

Row = dict[str, Any]


def verdicts(rows: Sequence[Row], chance_error_pct: float) -> list[dict[str, str]]:
    """Returns claim, source, verdict ("agrees", "disagrees", "undecided") and evidence."""
    plain = _by_depth(rows, "plain")
    residual = _by_depth(rows, "residual")
    found = []
    if len(plain) > 1:
        found.append(_degradation(plain[min(plain)], plain[max(plain)], chance_error_pct))
    if len(residual) > 1:
        found.append(_no_degradation(residual[min(residual)], residual[max(residual)]))
    for depth in sorted(plain.keys() & residual.keys()):
        found.append(_residual_is_better(plain[depth], residual[depth]))
    return found


def _by_depth(rows: Sequence[Row], kind: str) -> dict[int, Row]:
    """Returns the first row of each depth: the order of params.yaml decides, not the scores."""
    found: dict[int, Row] = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(row["depth"], row)
    return found


def _compare(row: Row, other: Row, score: str) -> tuple[int, str]:
    """Returns -1, 0 or 1 (row errs less, undecided, more; by their intervals) and the figures."""
    (low, high), (other_low, other_high) = (
        row["scores"][f"{score}_ci95"],
        other["scores"][f"{score}_ci95"],
    )
    sign = -1 if high < other_low else 1 if low > other_high else 0
    figures = ", ".join(
        f"{r['name']} {r['scores'][score]:.1f} % ({r['scores'][score + '_ci95'][0]:.1f} to "
        f"{r['scores'][score + '_ci95'][1]:.1f})"
        for r in (row, other)
    )
    return sign, figures


def _budget(row: Row) -> str:
    updates = row["scores"]["updates"]
    return f"one seed of each, {updates:,} updates (the paper: {PAPER_UPDATES:,})"


def _verdict(
    claim: str, source: str, agrees: bool, disagrees: bool, evidence: str
) -> dict[str, str]:
    verdict = "agrees" if agrees else "disagrees" if disagrees else "undecided"
    return {"claim": claim, "source": source, "verdict": verdict, "evidence": evidence}


def _degradation(shallow: Row, deep: Row, chance_error_pct: float) -> dict[str, str]:
    sign, figures = _compare(deep, shallow, "train_error_pct")
    evidence = f"training error: {figures}; {_budget(deep)}"
    failed = deep["scores"]["train_error_pct"] > NEAR_CHANCE * chance_error_pct
    if failed:
        evidence += (
            f"; {deep['name']} failed to train in {deep['scores']['updates']:,} updates (chance is "
            f"{chance_error_pct:.0f} %), which is less than the claim: it is about networks that converge"
        )
    return _verdict(
        "A deeper plain network has a higher training error", "section 4.2, figure 6 left",
        sign > 0 and not failed, sign < 0, evidence,
    )  # fmt: skip


def _no_degradation(shallow: Row, deep: Row) -> dict[str, str]:
    sign, figures = _compare(deep, shallow, "test_error_pct")
    return _verdict(
        "A deeper residual network has a lower test error", "section 4.2, table 6",
        sign < 0, sign > 0, f"test error: {figures}; {_budget(deep)}",
    )  # fmt: skip


def _residual_is_better(plain: Row, residual: Row) -> dict[str, str]:
    sign, figures = _compare(residual, plain, "test_error_pct")
    return _verdict(
        f"At {plain['depth']} layers the residual network has a lower test error than the plain one",
        "section 4.2, figure 6", sign < 0, sign > 0,
        f"test error: {figures}; {_budget(residual)}",
    )  # fmt: skip
