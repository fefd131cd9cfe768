"""A claim as a value, and how any claim is decided."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline import paper
from pipeline.report.claims.inference import Estimate, Proportion, Student, holm
from pipeline.report.claims.networks import Network, longest_interval

ALPHA = 0.05  # of a page: the chance of any verdict that is not so
LEAST_P = 1e-15  # what is smaller has no meaningful digits
Verdict = Literal["holds", "does not hold", "undecided", "cannot be asked", "not run"]


class NotRunError(Exception):
    """The study lacks the networks that a claim is about; `missing` are (block, depth, option)."""

    def __init__(self, why: str, *missing: tuple[str, int, str]) -> None:
        super().__init__(why)
        self.missing = missing


class NotAskedError(Exception):
    """The networks are there, but say nothing about the claim as they were trained."""


@dataclass(frozen=True)
class Known:
    """A number that is computed and not estimated."""

    value: float
    images: float = 0

    def p_above(self, bound: float) -> float:
        """As `Estimate`: 0 or 1."""
        return float(self.value <= bound)

    def p_below(self, bound: float) -> float:
        """As `Estimate`: 0 or 1."""
        return float(self.value >= bound)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """As `Estimate`."""
        return self.value, self.value

    def needed(self, bound: float, alpha: float) -> str:
        """As `Estimate`."""
        return ""


@dataclass(frozen=True)
class Every:
    """Several estimates of which each must be below a bound; `value` is the largest."""

    parts: Sequence[Estimate]

    @property
    def _largest(self) -> Estimate:
        return max(self.parts, key=lambda part: part.value)

    @property
    def value(self) -> float:
        """The largest."""
        return self._largest.value

    @property
    def images(self) -> float:
        """As `Estimate`, the fewest."""
        return min(part.images for part in self.parts)

    def p_above(self, bound: float) -> float:
        """As `Estimate`, that any is above (Bonferroni)."""
        return min(1.0, len(self.parts) * min(part.p_above(bound) for part in self.parts))

    def p_below(self, bound: float) -> float:
        """As `Estimate`, that all are below (an intersection-union test)."""
        return max(part.p_below(bound) for part in self.parts)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """As `Estimate`, of the largest."""
        return self._largest.interval(level)

    def needed(self, bound: float, alpha: float) -> str:
        """As `Estimate`, of the least certain."""
        return max(self.parts, key=lambda part: part.p_below(bound)).needed(bound, alpha)


@dataclass(frozen=True)
class Measured:
    """What a claim's networks show: the number that decides, and the figures that it comes from."""

    estimate: Estimate
    networks: Sequence[Network]
    figures: str
    what: str = "difference"


@dataclass(frozen=True)
class Claim:
    """A claim: what it says, where, and the number that must be above or below `bound`, or `within` it of 0.

    `of` "paper": a claim of the paper, about networks that converged. `of` "budget": a claim about how fast
    networks train, asked after however many updates. `of` "own": one of params.yaml. `measure` takes the comparable networks of a family;
    it raises NotRunError and NotAskedError.
    """

    text: str
    source: str
    of: Literal["paper", "budget", "own"]
    measure: Callable[[Sequence[Network]], Measured]
    must_be: Literal["above", "below", "within"]
    bound: float = 0.0
    needs_convergence: bool = True
    unit: str = "points"  # of the bound, and of what is measured

    @property
    def scale(self) -> float:
        """By what a measured number is shown: shares of images in percent or points."""
        return 100.0 if self.unit in ("points", "%") else 1.0

    def p_values(self, found: Estimate) -> tuple[float, float]:
        """Returns the two-sided p-values against "it does not hold" and "it holds"."""
        above, below = found.p_above(self.bound), found.p_below(self.bound)
        if self.must_be == "within":  # two one-sided tests (Schuirmann 1987)
            return max(found.p_above(-self.bound), below), min(
                1.0, 2 * min(above, found.p_below(-self.bound))
            )
        holds, fails = (above, below) if self.must_be == "above" else (below, above)
        return min(1.0, 2 * holds), min(1.0, 2 * fails)

    def least_images(self, found: Estimate) -> int:
        """Returns how many images it takes at the least, before any correction, however they come out.

        That two error rates are within a margin, or one below a bound, shows best where no image tells them apart,
        or none is wrong: the chance of that at the bound itself must be small. Any other difference takes six.
        """
        if self.must_be == "within" or (self.must_be == "below" and self.bound and _is_rate(found)):
            return math.ceil(math.log(ALPHA / 2) / math.log1p(-self.bound))
        return math.ceil(math.log2(2 / ALPHA))


def _is_rate(found: Estimate) -> bool:
    """Tells whether a number is one network's error rate and not a difference."""
    return isinstance(found, Proportion) or (isinstance(found, Student) and found.least == 0)


@dataclass(frozen=True)
class Decided:
    """A claim with its verdict, as it stands in report.json.

    `value` with its 95 % `interval` is the number that decides, in `unit`; it must be above, below or within
    `bound`, which is in that unit too. Value and interval are null where nothing was measured.
    `missing` are the networks that were not run, by block, depth and option, and `like` a row of their recipe.
    """

    claim: str
    source: str
    of: str
    verdict: Verdict
    evidence: str
    must_be: str
    bound: float
    value: float | None = None
    interval: tuple[float, float] | None = None
    unit: str = ""
    needed: str = ""
    missing: Sequence[tuple[str, int, str]] = ()
    like: str = ""


@dataclass(frozen=True)
class _Asked:
    claim: Claim
    measured: Measured
    left_out: Sequence[Network]

    @property
    def test(self) -> tuple[object, ...]:
        """What is tested: the same number asked twice, of the paper and at a budget, is one test."""
        names = tuple(one.name for one in self.measured.networks)
        measured = self.measured
        return (names, measured.figures, measured.estimate, self.claim.must_be, self.claim.bound)

    @property
    def is_tested(self) -> bool:
        """Tells whether chance could make the verdict wrong."""
        return not isinstance(self.measured.estimate, Known)


def decide(claims: Sequence[tuple[Claim, Sequence[Network]]]) -> list[Decided]:
    """Returns the verdict on each claim about some networks; together they are wrong with a chance of 5 %.

    A claim whose networks were not trained, not comparably or not to the end is not decided, nor one on fewer
    images than could decide it.
    """
    found: list[Decided | _Asked] = []
    for claim, networks in claims:
        like = networks[0].name if networks else ""
        try:
            found.append(_with_enough_images(_asked(claim, networks)))
        except NotRunError as why:
            found.append(_said(claim, "not run", str(why), missing=why.missing, like=like))
        except NotAskedError as why:
            found.append(_said(claim, "cannot be asked", str(why)))
    tested = {
        one.test: min(one.claim.p_values(one.measured.estimate))
        for one in found
        if isinstance(one, _Asked) and one.is_tested
    }
    sure = dict(zip(tested, holm(list(tested.values()), ALPHA), strict=True))
    bar = ALPHA / max(1, len(sure) - sum(sure.values()))  # of those that are left
    return [
        _verdict(one, sure=sure.get(one.test, True), bar=bar) if isinstance(one, _Asked) else one
        for one in found
    ]


def _asked(claim: Claim, networks: Sequence[Network]) -> _Asked:
    """Returns what the networks show; of a claim that needs it, those that have converged.

    Raises NotAskedError where too few of them have, and what `measure` raises.
    """
    if not claim.needs_convergence:
        return _Asked(claim, claim.measure(networks), ())
    whole = claim.measure(networks)
    try:
        some = claim.measure([one for one in networks if one.is_converged])
    except NotRunError:
        raise NotAskedError(_why_not(whole.networks)) from None
    if any(not one.is_converged for one in some.networks):
        raise NotAskedError(_why_not(some.networks))
    names = {one.name for one in some.networks}
    return _Asked(
        claim,
        some,
        [one for one in whole.networks if not one.is_converged and one.name not in names],
    )


def _with_enough_images(one: _Asked) -> _Asked:
    """Returns its argument; raises NotAskedError where no outcome on as few images could decide it."""
    found = one.measured.estimate
    if not found.images or (least := one.claim.least_images(found)) <= found.images:
        return one
    raise NotAskedError(
        f"{one.measured.figures}; whatever came out on {found.images:,.0f} images, it would not decide this: "
        f"{least:,} or more are needed"
    )


def _why_not(networks: Sequence[Network]) -> str:
    """Says which networks had not converged, and what would be needed."""
    theirs, some = paper.UPDATES.get(networks[0].family, 0), networks[0].updates
    said = ["the claim is about networks that converged"]
    if late := [one for one in networks if one.convergence == "not converged"]:
        names = ", ".join(f"{one.name} ({one.lacks})" if one.lacks else one.name for one in late)
        longer = f" (the paper's: {theirs:,} updates)" if some < theirs else ""
        said.append(f"{names} had not after {some:,} updates: train longer{longer}")
    if silent := [one.name for one in networks if one.convergence == "too few reports"]:
        said.append(
            f"the curve of {', '.join(silent)} has too few reports to tell: report_every_updates of at most "
            f"{min(longest_interval(one.histories[0]) for one in networks if one.name in silent):,}"
        )
    return "; ".join(said)


def _verdict(one: _Asked, *, sure: bool, bar: float) -> Decided:
    claim, measured = one.claim, one.measured
    holds, fails = claim.p_values(measured.estimate)
    verdict: Verdict = "holds" if holds < fails else "does not hold"
    if not one.is_tested:
        return _said(claim, verdict, measured.figures, measured)
    evidence = f"{measured.figures}; {_number(claim, measured)}, {p_said(min(holds, fails))}"
    evidence += "" if sure else f" (the bar is {bar:.2g})"
    evidence += f"; {_of_whom(measured)}"
    if one.left_out:
        names = ", ".join(left.name for left in one.left_out)
        evidence += f"; left out, since not converged: {names}"
    if sure:
        return _said(claim, verdict, evidence, measured)
    edge = (
        math.copysign(claim.bound, measured.estimate.value)
        if claim.must_be == "within"
        else claim.bound
    )
    return _said(claim, "undecided", evidence, measured, measured.estimate.needed(edge, bar))


def p_said(p: float) -> str:
    """Returns a p value in words; one that is too small for floating point is not zero."""
    return f"p = {p:.2g}" if p >= LEAST_P else f"p < {LEAST_P:g}"


def _said(
    claim: Claim, verdict: Verdict, evidence: str, measured: Measured | None = None, needed: str = "",
    missing: Sequence[tuple[str, int, str]] = (), like: str = "",
) -> Decided:  # fmt: skip
    scale = claim.scale
    found = Decided(
        claim.text, claim.source, claim.of, verdict, evidence, claim.must_be, scale * claim.bound,
        unit=claim.unit, needed=needed, missing=missing, like=like,
    )  # fmt: skip
    if measured is None:
        return found
    low, high = measured.estimate.interval()
    value = scale * measured.estimate.value
    return replace(found, value=value, interval=(scale * low, scale * high))


def _number(claim: Claim, measured: Measured) -> str:
    value = claim.scale * measured.estimate.value
    low, high = (claim.scale * end for end in measured.estimate.interval())
    digits = digits_of(high - low)
    if isinstance(measured.estimate, Proportion):
        return f"95 %: {low:.{digits}f} to {high:.{digits}f} %"
    shown = f"{measured.what} {value:+.{digits}f} {claim.unit}".rstrip()
    return f"{shown} (95 %: {low:+.{digits}f} to {high:+.{digits}f})"


def digits_of(width: float) -> int:
    """Returns after how many decimals an interval of a width is told apart."""
    return 1 if width >= 1 else 2 if width >= 0.1 else 3


def _of_whom(measured: Measured) -> str:
    """Says how far the verdict reaches."""
    networks = measured.networks
    seeds = sorted({len(one.seeds) for one in networks})
    said = (
        " and ".join(f"{count:,}" for count in sorted({one.updates for one in networks}))
        + " updates"
    )
    counts = "one seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    parts = measured.estimate.parts if isinstance(measured.estimate, Every) else [measured.estimate]
    over_seeds = all(isinstance(part, Student) and part.of_seeds for part in parts)
    if over_seeds:
        return f"{counts} of each, {said}"
    return f"{said}: it speaks of these networks alone, and not of other seeds"
