"""Tests behind the verdicts: how large a difference is, how sure, and what would decide it (docs/adr/0017).

Everything is a difference of error rates or another number, its one-sided p-values and its interval. Networks
of one seed are compared on their images alone, exactly; where there are several seeds, images and seeds both
vary and the statistic has Student's t distribution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.evaluation.scores import difference

MOST_SEEDS = 50  # more are no proposal
FEW = 4  # degrees of freedom: with fewer, no credit is given for how many images there are
UNLIKE = 0.02  # below this p-value, a network is not taken to vary as little as those like it
OF_FIVE_RUNS = 4  # degrees of freedom
MOST_IMAGES = 1000  # times as many as there are


class Estimate(Protocol):
    """A number that was estimated from images, seeds or both."""

    @property
    def value(self) -> float:
        """The number itself."""

    @property
    def images(self) -> float:
        """From how many images it was estimated; 0 if it is not of images."""

    def p_above(self, bound: float) -> float:
        """Returns the one-sided p-value against "the true value is `bound` or less"."""

    def p_below(self, bound: float) -> float:
        """Returns the one-sided p-value against "the true value is `bound` or more"."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Returns the two-sided confidence interval."""

    def needed(self, bound: float, alpha: float) -> str:
        """Returns what would decide on which side of `bound` the value is, if it is what it seems to be."""


@dataclass(frozen=True)
class Proportion:
    """A share of independent images: binomial, exact (Clopper and Pearson 1934)."""

    count: int
    images: int

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.images

    def p_above(self, bound: float) -> float:
        """As `Estimate`."""
        return float(stats.binom.sf(self.count - 1, self.images, bound))

    def p_below(self, bound: float) -> float:
        """As `Estimate`."""
        return float(stats.binom.cdf(self.count, self.images, bound))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """As `Estimate`."""
        found = stats.binomtest(self.count, self.images).proportion_ci(level, "exact")
        return float(found.low), float(found.high)

    def needed(self, bound: float, alpha: float) -> str:
        """As `Estimate`."""
        spread = self.value * (1 - self.value) or 1 / self.images
        return Student(self.value, spread / self.images, images=self.images).needed(bound, alpha)


@dataclass(frozen=True)
class Paired:
    """Two networks on the same images: `worse` only the first gets wrong, `better` only the second.

    Exact, given how many images tell them apart (McNemar 1947); the value is the first's error rate less the
    second's. For its interval the difference's normal approximation is used, with half an image added to each of
    the four cells (Agresti and Min 2005). At a bound other than 0 so is it, unless the score test (Tango 1998) is
    less sure: where few images tell the networks apart, the one takes that for too good a sign.
    """

    worse: int
    better: int
    images: int

    @property
    def value(self) -> float:
        """The difference of the error rates."""
        return (self.worse - self.better) / self.images

    @property
    def _told_apart(self) -> int:
        return self.worse + self.better

    def _approximately(self) -> "Student":
        value, se = difference(self.worse, self.better, self.images)
        return Student(value, se**2, images=self.images)

    def _score(self, bound: float) -> "Student":
        """Returns the difference with the variance that it has if the true one is `bound` (Tango 1998)."""
        apart = (2 * self.images - self.worse + self.better) * bound - self._told_apart
        under = 8 * self.images * self.better * bound * (1 - bound)
        better = (math.sqrt(apart**2 + under) - apart) / (4 * self.images)
        variance = (2 * better + bound * (1 - bound)) / self.images
        return Student(self.value, max(variance, 0.0), images=self.images)

    def p_above(self, bound: float) -> float:
        """As `Estimate`."""
        if bound:
            return max(one.p_above(bound) for one in (self._approximately(), self._score(bound)))
        return float(stats.binom.sf(self.worse - 1, self._told_apart, 0.5))

    def p_below(self, bound: float) -> float:
        """As `Estimate`."""
        if bound:
            return max(one.p_below(bound) for one in (self._approximately(), self._score(bound)))
        return float(stats.binom.cdf(self.worse, self._told_apart, 0.5))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """As `Estimate`."""
        return self._approximately().interval(level)

    def needed(self, bound: float, alpha: float) -> str:
        """As `Estimate`."""
        both = (self._approximately(), self._score(bound))
        return max(both, key=lambda one: one.of_images).needed(bound, alpha)


@dataclass(frozen=True)
class Student:
    """A value whose variance is the sum of three, with Student's t distribution.

    The variance `of_images` would shrink with more of the `images`, that `of_seeds`, of `df` degrees of freedom,
    with more of the `seeds` of each network, and `fixed`, that of the paper's five runs, with nothing. The true
    value lies between `least` and `most`.
    """

    value: float
    of_images: float = 0.0
    of_seeds: float = 0.0
    df: float = math.inf
    seeds: int = 1
    images: float = 0
    fixed: float = 0.0
    least: float = -math.inf
    most: float = math.inf

    @property
    def se(self) -> float:
        """The standard error."""
        return math.sqrt(self.of_images + self.of_seeds + self.fixed)

    @property
    def free(self) -> float:
        """The degrees of freedom (Satterthwaite 1946); the images' part has as many as images."""
        others = self.of_seeds + self.fixed
        if others == 0:
            return math.inf
        free = others**2 / (self.of_seeds**2 / self.df + self.fixed**2 / OF_FIVE_RUNS)
        return free if free < FEW else free * (1 + self.of_images / others) ** 2

    def _at(self, bound: float) -> "Student":
        """Returns the estimate with the variance over images that it has at the least if `bound` is true.

        A difference of `bound` shows in at least that share of the images.
        """
        least = abs(bound) * (1 - abs(bound)) / self.images if self.images else 0.0
        return replace(self, of_images=max(self.of_images, least))

    def _p(self, distance: float) -> float:
        if self.se == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(stats.t.sf(distance / self.se, self.free))

    def p_above(self, bound: float) -> float:
        """As `Estimate`."""
        return self._at(bound)._p(self.value - bound)

    def p_below(self, bound: float) -> float:
        """As `Estimate`."""
        return self._at(bound)._p(bound - self.value)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """As `Estimate`."""
        half = float(stats.t.isf((1 - level) / 2, self.free)) * self.se
        return max(self.value - half, self.least), min(self.value + half, self.most)

    def needed(self, bound: float, alpha: float) -> str:
        """As `Estimate`."""

        def decides(images: float = 1.0, seeds: float = 1.0) -> bool:
            """Tells whether so many times the images and seeds would decide it."""
            df = self.df * (self.seeds * seeds - 1) / (self.seeds - 1) if self.of_seeds else self.df
            more = replace(
                self, of_images=self.of_images / images, images=self.images and self.images * images,
                of_seeds=self.of_seeds / seeds, df=df,
            )  # fmt: skip
            return 2 * min(more.p_above(bound), more.p_below(bound)) < alpha

        if not decides(math.inf, math.inf):
            if self.fixed:
                return "nothing would decide it: the published number is itself no surer than that"
            return "nothing would decide it: it seems to be the bound itself"
        more = " and more seeds" if self.of_seeds else ""
        if not decides(seeds=math.inf):
            for factor in np.geomspace(1, MOST_IMAGES, 200) if self.images else ():
                if decides(factor, math.inf):
                    count = _rounded(factor * self.images)
                    return f"about {count:,} images{more} would decide it, if it is as large as it seems"
            return "no number of images would decide a difference as small as this"
        for count in range(self.seeds + 1, MOST_SEEDS + 1):
            if decides(seeds=count / self.seeds):
                return f"about {count} seeds of each would decide it, if it is as large as it seems"
        return f"not even {MOST_SEEDS} seeds of each would decide a difference as small as this"


def _rounded(images: float) -> int:
    """Returns a number of images, rounded up to two digits."""
    unit = 10 ** max(len(str(int(images))) - 2, 0)
    return int(math.ceil(images / unit) * unit)


@dataclass(frozen=True)
class Errors:
    """The errors of one network's seeds on `total` images: how many, and where known which.

    `counts` int64 (seeds,); `wrong` bool (seeds, total), or None where only counts were kept.
    """

    counts: NDArray[np.int64]
    total: int
    wrong: NDArray[np.bool_] | None = None

    @property
    def rates(self) -> NDArray[np.float64]:
        """The error rate of each seed."""
        found: NDArray[np.float64] = self.counts / self.total
        return found

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.counts)


def rate(errors: Errors) -> Estimate:
    """Returns a network's error rate."""
    if errors.seeds == 1:
        return Proportion(int(errors.counts[0]), errors.total)
    return combination([errors], [1.0])


def combination(
    every: Sequence[Errors], all_weights: Sequence[float], alike: Sequence[Sequence[Errors]] = ()
) -> Estimate:
    """Returns the sum of the networks' error rates, each times its weight.

    Networks whose wrong images are all known, on the same images, are paired; others are taken to be
    independent, which is conservative if the images are the same. `alike` are for each network those whose
    seeds tell, together with its own, how much it varies from seed to seed. Where a network has one seed, all are
    compared on the images alone. A network of weight 0 has no part.
    """
    kept = [place for place, weight in enumerate(all_weights) if weight]
    groups, weights = [every[place] for place in kept], [all_weights[place] for place in kept]
    seeds_of = [alike[place] if alike else [every[place]] for place in kept]
    first = groups[0]
    paired = all(one.wrong is not None and one.total == first.total for one in groups)
    if paired and sorted(weights) == [-1, 1] and all(one.seeds == 1 for one in groups):
        mine, other = (groups[list(weights).index(sign)].wrong for sign in (1, -1))
        assert mine is not None and other is not None
        return Paired(int((mine & ~other).sum()), int((other & ~mine).sum()), first.total)
    value = float(sum(w * one.rates.mean() for w, one in zip(weights, groups, strict=True)))
    of_images = _images_variance(groups, weights, paired)
    of_seeds, df = _seeds_variance(groups, weights, seeds_of)
    return Student(
        value, of_images, of_seeds, df, min(one.seeds for one in groups), first.total,
        least=sum(w for w in weights if w < 0), most=sum(w for w in weights if w > 0),
    )  # fmt: skip


def _images_variance(groups: Sequence[Errors], weights: Sequence[float], paired: bool) -> float:
    """Returns the variance over images; two made-up images keep it above 0 where nobody errs."""
    if paired:
        together = sum(
            w * one.wrong.mean(axis=0)
            for w, one in zip(weights, groups, strict=True)
            if one.wrong is not None
        )
        most = max(abs(w) for w in weights)
        values = np.append(together, [most, -most])
        return float(values.var() / len(values))
    return float(
        sum(
            w**2 * (p := (one.counts.mean() + 2) / (one.total + 4)) * (1 - p) / (one.total + 4)
            for w, one in zip(weights, groups, strict=True)
        )
    )


def _seeds_variance(
    groups: Sequence[Errors], weights: Sequence[float], alike: Sequence[Sequence[Errors]]
) -> tuple[float, float]:
    """Returns the variance over seeds and its degrees of freedom; 0 where it is not known, or not asked.

    Networks that share a variance share its error too: their parts are one term of Satterthwaite's.
    """
    shares: dict[tuple[float, int], float] = {}
    for w, one, others in zip(weights, groups, alike, strict=True):
        variance, free = _variance(one, others)
        if one.seeds == 1:  # others' seeds do not tell how much it varies
            return 0.0, math.inf
        shares[variance, free] = shares.get((variance, free), 0.0) + w**2 / one.seeds
    parts = [(variance * share, free) for (variance, free), share in shares.items() if variance]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0, math.inf
    return total, total**2 / sum(part**2 / free for part, free in parts)


def _variance(one: Errors, alike: Sequence[Errors]) -> tuple[float, int]:
    """Returns how much a network varies from seed to seed, and how many degrees of freedom say so.

    That is the pooled variance of all that are alike, unless its own is larger by an F test against the
    others': a network that varies more than those like it counts as it is. Too few others (under four degrees
    of freedom) could not show it: then whatever is larger counts as it is.
    """
    several = [some.rates for some in alike if some.seeds > 1]
    free = sum(len(rates) - 1 for rates in several)
    if not free:
        return 0.0, 0
    pooled = sum((len(rates) - 1) * float(rates.var(ddof=1)) for rates in several) / free
    own, mine = (float(one.rates.var(ddof=1)), one.seeds - 1) if one.seeds > 1 else (0.0, 0)
    if (rest := free - mine) and mine:
        others = max((pooled * free - own * mine) / rest, 0.0)
        is_unlike = rest < FEW or others == 0 or stats.f.sf(own / others, mine, rest) < UNLIKE
        if own > others * (1 + 1e-9) and is_unlike:
            return own, mine
    return pooled, free


def means(first: Sequence[float], second: Sequence[float]) -> Student:
    """Returns the difference of two means (Welch 1947); each has a value or more a seed.

    Raises ValueError if neither varies: then nothing is known of how much it would.
    """
    variances = [float(np.var(some, ddof=1)) / len(some) for some in (first, second)]
    if (total := sum(variances)) == 0:
        raise ValueError("neither of two means has any variance")
    below = sum(v**2 / (len(some) - 1) for v, some in zip(variances, (first, second), strict=True))
    value = float(np.mean(first) - np.mean(second))
    return Student(value, 0.0, total, total**2 / below, min(len(first), len(second)))


def trend_weights(count: int) -> list[float]:
    """Returns the weights of a rise from the first of some ordered groups to the last.

    The sum of groups times weights is how far their fitted straight line rises over all of them; of two it is
    the second less the first.
    """
    places = np.arange(count) - (count - 1) / 2
    return [float(w) for w in places * (count - 1) / (places**2).sum()]


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Tells of each test whether it is rejected, with a chance of `alpha` of any wrong one (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > alpha / (len(p_values) - rank):
            break
        found[place] = True
    return found
