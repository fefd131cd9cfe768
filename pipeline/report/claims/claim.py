"""A claim as a value, and how any claim is decided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.report.claims.inference import Estimate, holm
from pipeline.report.claims.networks import Network

ALPHA = 0.05  # of a page: the chance of any verdict that is not so
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
    """What a claim's networks show: the number that decides, and the figures that it comes from.

    `unit` is what the number counts; for "points" it is a share of images, shown times 100.
    """

    estimate: Estimate
    networks: Sequence[Network]
    figures: str
    unit: str = "points"


@dataclass(frozen=True)
class Claim:
    """A claim: what it says, where, and the number that must be above or below `bound`, or `within` it of 0.

    `of` "paper": a claim of the paper, about networks that converged. `of` "budget": a claim about how fast
    networks train, asked after however many updates. `measure` takes the comparable networks of a family;
    it raises NotRunError and NotAskedError.
    """

    text: str
    source: str
    of: Literal["paper", "budget"]
    measure: Callable[[Sequence[Network]], Measured]
    must_be: Literal["above", "below", "within"]
    bound: float = 0.0
    needs_convergence: bool = True

    def p_values(self, found: Estimate) -> tuple[float, float]:
        """Returns the two-sided p-values against "it does not hold" and "it holds"."""
        above, below = found.p_above(self.bound), found.p_below(self.bound)
        if self.must_be == "within":  # two one-sided tests (Schuirmann 1987)
            return max(found.p_above(-self.bound), below), min(
                1.0, 2 * min(above, found.p_below(-self.bound))
            )
        holds, fails = (above, below) if self.must_be == "above" else (below, above)
        return min(1.0, 2 * holds), min(1.0, 2 * fails)


@dataclass(frozen=True)
class Decided:
    """A claim with its verdict, as it stands in report.json."""

    claim: str
    source: str
    of: str
    verdict: Verdict
    evidence: str
    needed: str = ""
    missing: Sequence[tuple[str, int, str]] = ()


def decide(claims: Sequence[tuple[Claim, Sequence[Network]]]) -> list[Decided]:
    """Returns the verdict on each claim about some networks; together they are wrong with a chance of 5 %.

    A claim whose networks were not trained, not comparably or not to the end is not decided.
    """
    found: list[Decided | tuple[Claim, Measured]] = []
    for claim, networks in claims:
        try:
            found.append((claim, _asked(claim, networks)))
        except NotRunError as why:
            found.append(_said(claim, "not run", str(why), missing=why.missing))
        except NotAskedError as why:
            found.append(_said(claim, "cannot be asked", str(why)))
    asked = [one for one in found if isinstance(one, tuple)]
    # the same number asked twice, of the paper and at a budget, is one test
    tested = {_test(*one): min(one[0].p_values(one[1].estimate)) for one in asked}
    tested = {test: p for test, p in tested.items() if not isinstance(test[0], Known)}
    sure = dict(zip(tested, holm(list(tested.values()), ALPHA), strict=True))
    return [
        _verdict(*one, sure=sure.get(_test(*one), True), tests=len(tested))
        if isinstance(one, tuple)
        else one
        for one in found
    ]


def _test(claim: Claim, measured: Measured) -> tuple[Estimate, str, float]:
    return measured.estimate, claim.must_be, claim.bound


def _asked(claim: Claim, networks: Sequence[Network]) -> Measured:
    """Returns what the networks show; raises NotAskedError where they had not converged and must have."""
    measured = claim.measure(networks)
    if claim.needs_convergence:
        open_ends = [one.name for one in measured.networks if not one.is_converged]
        if open_ends:
            raise NotAskedError(
                f"the claim is about networks that converged; {', '.join(open_ends)} had not after "
                f"{measured.networks[0].updates:,} updates"
            )
    return measured


def _verdict(claim: Claim, measured: Measured, *, sure: bool, tests: int) -> Decided:
    holds, fails = claim.p_values(measured.estimate)
    alpha = ALPHA / max(tests, 1)
    evidence = f"{measured.figures}; {_number(measured)}"
    if isinstance(measured.estimate, Known):
        return _said(claim, "holds" if holds < fails else "does not hold", measured.figures)
    evidence += f" (p = {min(holds, fails):.2g}); {_of_whom(measured.networks)}"
    if sure:
        return _said(claim, "holds" if holds < fails else "does not hold", evidence)
    needed = measured.estimate.needed(claim.bound, alpha)
    return _said(claim, "undecided", evidence, needed)


def _said(
    claim: Claim, verdict: Verdict, evidence: str, needed: str = "",
    missing: Sequence[tuple[str, int, str]] = (),
) -> Decided:  # fmt: skip
    return Decided(claim.text, claim.source, claim.of, verdict, evidence, needed, missing)


def _number(measured: Measured) -> str:
    low, high = measured.estimate.interval()
    scale = 100 if measured.unit == "points" else 1
    digits = digits_of((high - low) * scale)
    value, low, high = (scale * number for number in (measured.estimate.value, low, high))
    return f"{value:+.{digits}f} {measured.unit} (95 %: {low:+.{digits}f} to {high:+.{digits}f})"


def digits_of(width: float) -> int:
    """Returns after how many decimals an interval of a width is told apart."""
    return 1 if width >= 1 else 2 if width >= 0.1 else 3


def _of_whom(networks: Sequence[Network]) -> str:
    """Says how far the verdict reaches."""
    if not networks:
        return "it speaks of these networks alone"
    seeds = sorted({len(one.seeds) for one in networks})
    updates = sorted({one.updates for one in networks})
    said = " and ".join(f"{count:,}" for count in updates) + " updates"
    if seeds == [1]:
        return f"one seed of each, {said}: it speaks of these networks alone"
    return f"{' or '.join(map(str, seeds))} seeds of each, {said}"
