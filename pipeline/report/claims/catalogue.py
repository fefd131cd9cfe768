"""The claims: what the paper says of its networks, and what can be asked after any number of updates.

One file, although long: a list of claims, and beside it what each of them measures.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

import numpy as np

from pipeline import paper
from pipeline.params import Better, Equal, OwnClaim
from pipeline.report.claims.claim import (
    Claim,
    Every,
    Known,
    Measured,
    NotAskedError,
    NotRunError,
)
from pipeline.report.claims.inference import (
    Errors,
    Estimate,
    Student,
    combination,
    means,
    rate,
    trend_weights,
)
from pipeline.report.claims.networks import Network, updates_to

Networks = Sequence[Network]

DEEPEST = 1202
EQUAL = 0.005  # error rates are called equal within half a point
NOT_WORSE = 0.005  # than a published number
BASIC, BOTTLENECK = "basic", "bottleneck"
DEPTHS = {"cifar": (20, 32, 44, 56, 110), "imagenet": (18, 34)}
BOTTLENECKS = (50, 101, 152)
TEN_CROPS = "test_ten_crops"  # tables 2 and 3 are of ten crops
SCORES = {
    "train": "training error",
    "val": "validation error",
    "test": "test error",
    TEN_CROPS: "test error (ten crops)",
    "test_scales": "test error (several scales)",
}


def claims_of(family: str, chance_pct: float) -> list[Claim]:
    """Returns the claims on a family of networks, "cifar" or "imagenet", on data of that chance error."""
    on_cifar = family == "cifar"

    def claim(
        text: str, sources: tuple[str, str], measure: Callable[[Networks], Measured], must_be: str,
        bound: float = 0.0, *, of: str = "paper", converged: bool = True, unit: str = "points",
    ) -> Claim:  # fmt: skip
        source = sources[0] if on_cifar else sources[1]
        return Claim(text, source, of, measure, must_be, bound, converged, unit)  # type: ignore[arg-type]

    here = Family(family, chance_pct)
    found = [
        claim("Deeper plain networks have a higher training error",
              ("section 4.2, figure 6 left", "section 4.1, figure 4 left"), here.plain_trend, "above"),
        claim("The deepest plain network fits the training images worse than the shallowest would with identity "
              "layers added, which change nothing", ("section 1",) * 2, here.worse_than_constructed, "above"),
        claim("Deeper residual networks have a lower training error",
              ("section 4.2, figure 6 middle", "section 4.1, figure 4 right"),
              lambda some: here.residual_trend(some, "train"), "below"),
        claim("Deeper residual networks have a lower test error",
              ("section 4.2, table 6", "section 4.1, table 2"),
              lambda some: here.residual_trend(some, view_of(some)), "below"),
        claim("At the greatest depth, the residual network has a lower test error than the plain one",
              ("section 4.2, figure 6", "section 4.1, table 2"), here.residual_gain, "below"),
        claim("Shortcut options A, B and C all have a lower test error than the plain network",
              ("section 4.1, table 3",) * 2, here.options_gain, "below"),
        claim("Option B has a lower test error than A, and C than B", ("section 4.1, table 3",) * 2,
              here.options_order, "below"),
        claim("The options' differences are smaller than what the least of them gains over the plain network",
              ("section 4.1, table 3",) * 2, here.projections, "below"),
        claim("Shortcuts without parameters cost nothing: parameters and multiply-adds are the plain network's",
              ("sections 3.2 and 3.3",) * 2, here.cost_of_shortcuts, "within", 0.5, converged=False, unit=""),
    ]  # fmt: skip
    if on_cifar:
        found += [
            claim("Residual networks respond less strongly than plain ones: smaller standard deviations of the "
                  "layers' outputs, averaged over layers", ("section 4.2, figure 7", ""),
                  here.residual_responses, "below", unit=""),
            claim("Deeper residual networks respond less strongly, averaged over layers", ("section 4.2, figure 7", ""),
                  here.deeper_responses, "below", unit=""),
            claim(f"{DEEPEST} layers can be trained: a training error below 0.1 %", ("section 4.2", ""),
                  here.deepest_fits, "below", 0.001, unit="%"),
            claim(f"{DEEPEST} layers have a higher test error than 110", ("section 4.2, table 6", ""),
                  here.deepest_generalizes, "above"),
        ]  # fmt: skip
    else:
        found += [
            claim("Bottleneck networks of 50, 101 and 152 layers have a lower test error than 34 layers",
                  ("", "section 4.1, table 3"), here.bottlenecks, "below"),
            claim("The deeper a bottleneck network is (50, 101, 152 layers), the lower is its test error",
                  ("", "section 4.1, table 3"), here.bottleneck_trend, "below"),
            claim("The plain and the residual network of 18 layers are about equally accurate (within half a "
                  "point)", ("", "section 4.1, table 2"), here.equal_at_18, "within", EQUAL),
            claim("At 18 layers the residual network converges faster: it needs fewer updates to half of "
                  "chance's error", ("", "section 4.1"), here.faster_at_18, "below", converged=False,
                  unit="doublings"),
            claim("The residual network of 34 layers needs less than a fifth of VGG-19's multiply-adds",
                  ("", "section 3.3"), here.cheaper_than_vgg, "below", 0.2, converged=False, unit=""),
        ]  # fmt: skip
    found += [
        claim("After as many updates, a deeper plain network fits the training images worse",
              ("modelled on section 4.2", "modelled on section 4.1"), here.plain_trend, "above", of="budget",
              converged=False),
        claim("After as many updates, depth costs residual networks less than plain ones (training error)",
              ("modelled on section 4.2", "modelled on section 4.1"), here.cost_of_depth, "above", of="budget",
              converged=False),
        claim("After as many updates, the residual network of the greatest depth errs less on test images than "
              "the plain one", ("modelled on section 4.2", "modelled on section 4.1"), here.residual_gain, "below",
              of="budget", converged=False),
    ]  # fmt: skip
    return found


def published(network: Network, family: str) -> Claim | None:
    """Returns the claim that a network is not worse than the paper's, where the paper has its number."""
    spread = paper.RESNET_110_FIVE_RUNS_PCT[1]  # no other of the paper's networks has several runs
    if family == "cifar":
        number, source = paper.cifar10_test_error_pct(network.depth, network.option), "table 6"
        runs = 5 if network.depth == 110 else 1
    else:
        pair = paper.IMAGENET_TEN_CROPS_PCT.get((network.block, network.depth, network.option))
        number, source, runs = pair[0] if pair else None, "tables 2 and 3", 1
    if number is None:
        return None
    goal, view = number / 100, view_of([network])

    def measure(_: Networks) -> Measured:
        mine = rate(network.errors[view])
        if not isinstance(mine, Student):
            total = network.errors[view].total
            mine = Student(mine.value, mine.value * (1 - mine.value) / total, images=total)
        # the paper's runs deviate too
        gap = replace(mine, value=mine.value - goal, fixed=(spread / 100) ** 2 / runs,
                      least=-math.inf, most=math.inf)  # fmt: skip
        return Measured(gap, [network], _figures([network], view))

    how = (
        f"the mean of its five runs, {number:.2f} %"
        if runs == 5
        else f"the published {number:.2f} %"
    )
    return Claim(
        f"{network.name} has a test error at most {100 * NOT_WORSE:.1f} points above {how}",
        source, "paper", measure, "below", NOT_WORSE,
    )  # fmt: skip


def ensemble(members: Networks, name: str, best: Errors, together: Errors) -> Claim:
    """Returns the claim that an ensemble errs less than its best member, chosen on validation images."""

    def measure(_: Networks) -> Measured:
        crop = " (one crop)" if any(TEN_CROPS in one.errors for one in members) else ""
        figures = f"{SCORES['test']}{crop}: ensemble {_pct(together)}, {name} {_pct(best)}"
        return Measured(combination([together, best], [1, -1]), members, figures)

    text = "The ensemble has a lower test error than its best member"
    return Claim(text, "section 4.1, table 5", "paper", measure, "below")


def ensemble_of_six(
    members: Networks, rows: Sequence[str], name: str, best: Errors, together: Errors
) -> Claim:
    """Returns the claim on table 5's ensemble: six networks of different depth, two of them of 152 layers.

    `rows` are the declared members; the paper does not say which the other four are.
    """

    def measure(_: Networks) -> Measured:
        depths = sorted(one.depth for one in members for row in one.rows if row in rows)
        if len(depths) != 6 or depths.count(152) != 2 or len(set(depths)) < 3:
            raise NotAskedError(
                f"the declared ensemble has {len(rows)} members, of {', '.join(map(str, depths))} layers; the "
                "paper's has six, two of them of 152 layers: name six in ensemble.members"
            )
        return ensemble(members, name, best, together).measure(members)

    text = "An ensemble of six networks of different depth, two of 152 layers, has a lower test error than its best"
    return Claim(text, "section 4.1, table 5", "paper", measure, "below")


class Family:
    """What is measured of the networks of a family; `networks` are comparable ones everywhere."""

    def __init__(self, family: str, chance_pct: float) -> None:
        self.family, self.chance_pct = family, chance_pct

    # --- which networks -------------------------------------------------------------------------

    def _at(self, networks: Networks, depth: int, block: str, option: str = "") -> Network:
        for one in networks:
            if one.depth == depth and one.block == block and option in ("", one.option):
                return one
        missing = (block, depth, option or ("none" if block == "plain" else "A"))
        raise NotRunError(f"there is no {_called(*missing)} under the others' recipe", missing)

    def _each(self, networks: Networks, wanted: Sequence[tuple[str, int, str]]) -> list[Network]:
        """Returns networks by block, depth and option; raises NotRunError with all that are missing."""
        found, missing = list[Network](), list[tuple[str, int, str]]()
        for block, depth, option in wanted:
            try:
                found.append(self._at(networks, depth, block, option=option))
            except NotRunError as error:
                missing += error.missing
        if missing:
            names = ", ".join(_called(*one) for one in missing)
            raise NotRunError(f"missing under the others' recipe: {names}", *missing)
        return found

    def _by_depth(self, networks: Networks, *, plain: bool) -> dict[int, Network]:
        """Returns plain networks, or residual ones of one shortcut option: the one that most depths have."""
        of_kind = [
            one
            for one in networks
            if one.depth != DEEPEST and one.block == ("plain" if plain else BASIC)
        ]
        depths = {
            option: {one.depth for one in of_kind if one.option == option} for option in "ABC"
        }
        option = "none" if plain else max("ABC", key=lambda name: len(depths[name]))
        found: dict[int, Network] = {}
        for one in of_kind:
            if one.option == option:
                found.setdefault(one.depth, one)
        return dict(sorted(found.items()))

    def _several(self, networks: Networks, *, plain: bool) -> list[Network]:
        found = self._by_depth(networks, plain=plain)
        if len(found) < 2:
            block, option = ("plain", "none") if plain else (BASIC, "A")
            missing = [(block, d, option) for d in DEPTHS[self.family] if d not in found]
            raise NotRunError(
                f"{block} networks of two depths or more are needed, under one recipe; there is "
                f"{len(found) or 'none'}", *missing[: 2 - len(found)],
            )  # fmt: skip
        return list(found.values())

    def _pair(self, networks: Networks) -> tuple[Network, Network]:
        """Returns the residual and the plain network of the greatest depth that both have."""
        plain, residual = (self._by_depth(networks, plain=kind) for kind in (True, False))
        both = plain.keys() & residual.keys()
        if not both:
            depth = max([*plain, *residual] or DEPTHS[self.family])
            missing = [("plain", depth, "none")] if depth not in plain else []
            missing += [(BASIC, depth, "A")] if depth not in residual else []
            raise NotRunError("a plain and a residual network of one depth are needed", *missing)
        return residual[max(both)], plain[max(both)]

    def _options(self, networks: Networks) -> tuple[Network, list[Network]]:
        """Returns a plain network, and options A, B and C of its depth."""
        depths = {one.depth for one in networks if one.option in ("B", "C") and one.block == BASIC}
        depth = max(depths) if depths else DEPTHS[self.family][1]
        wanted = [("plain", depth, ""), *((BASIC, depth, option) for option in "ABC")]
        plain, *options = self._each(networks, wanted)
        return plain, options

    # --- what is measured -----------------------------------------------------------------------

    def _combined(
        self, all_: Networks, some: Networks, weights: Sequence[float], view: str
    ) -> Estimate:
        """Returns a combination; how much seeds vary is told by all plain, or all residual networks."""
        alike = [[o.errors[view] for o in all_ if o.is_plain == one.is_plain] for one in some]
        return combination([one.errors[view] for one in some], weights, alike)

    def _compared(
        self, all_: Networks, some: Networks, weights: Sequence[float], view: str
    ) -> Measured:
        return Measured(self._combined(all_, some, weights, view), some, _figures(some, view))

    def _every(
        self, all_: Networks, some: Networks, weights: Sequence[Mapping[int, float]]
    ) -> Measured:
        """Several combinations of test errors, each by the weights of some of the networks."""
        view = view_of(some)
        parts = [
            self._combined(all_, [some[n] for n in one], list(one.values()), view)
            for one in weights
        ]
        return Measured(
            Every(tuple(parts)), some, _figures(some, view), what="the largest difference"
        )

    def _trend(self, all_: Networks, some: Networks, view: str) -> Measured:
        """How far an error rises over networks in order, by a straight line; steps the other way are named."""
        found = self._compared(all_, some, trend_weights(len(some)), view)
        if len(some) == 2:
            return found
        steps = np.diff([one.errors[view].rates.mean() for one in some])
        against = ", ".join(
            f"{one.name} to {other.name}"
            for (one, other), step in zip(itertools.pairwise(some), steps, strict=True)
            if step * found.estimate.value < 0
        )
        figures = found.figures + (f" (the other way: {against})" if against else "")
        return replace(found, figures=figures, what="rise of the fitted line")

    def plain_trend(self, networks: Networks) -> Measured:
        """How far the training error rises from the shallowest plain network to the deepest, by a straight line."""
        return self._trend(networks, self._several(networks, plain=True), "train")

    def worse_than_constructed(self, networks: Networks) -> Measured:
        """The deepest plain network's training error less the shallowest one's.

        That is also the error of the shallowest one with identity layers added up to the deepest one's depth
        (tests/models/test_identity.py builds it): a solution no worse, which training does not find.
        """
        some = self._several(networks, plain=True)
        return self._compared(networks, [some[0], some[-1]], [-1, 1], "train")

    def residual_trend(self, networks: Networks, view: str) -> Measured:
        """How far an error rises from the shallowest residual network to the deepest, by a straight line."""
        return self._trend(networks, self._several(networks, plain=False), view)

    def residual_gain(self, networks: Networks) -> Measured:
        """The residual network's test error less the plain one's, at the greatest depth of both."""
        pair = self._pair(networks)
        return self._compared(networks, pair, [1, -1], view_of(pair))

    def cost_of_depth(self, networks: Networks) -> Measured:
        """How much more depth adds to the training error of plain networks than to that of residual ones."""
        plain, residual = (self._by_depth(networks, plain=kind) for kind in (True, False))
        both = sorted(plain.keys() & residual.keys())
        if len(both) < 2:
            self._several(networks, plain=True), self._several(networks, plain=False)
            depths = sorted(plain.keys() | residual.keys())
            missing = [("plain", d, "none") for d in (depths[0], depths[-1]) if d not in plain]
            option = next(iter(residual.values())).option
            missing += [(BASIC, d, option) for d in (depths[0], depths[-1]) if d not in residual]
            raise NotRunError(
                "plain and residual networks of the same two depths are needed", *missing
            )
        low, high = both[0], both[-1]
        some = [plain[high], plain[low], residual[high], residual[low]]
        return self._compared(networks, some, [1, -1, -1, 1], "train")

    def options_gain(self, networks: Networks) -> Measured:
        """The test error of each option less that of the plain network."""
        plain, options = self._options(networks)
        return self._every(networks, [plain, *options], [{n: 1, 0: -1} for n in (1, 2, 3)])

    def options_order(self, networks: Networks) -> Measured:
        """The test error of option B less that of A, and of C less that of B."""
        _, options = self._options(networks)
        return self._every(networks, options, [{1: 1, 0: -1}, {2: 1, 1: -1}])

    def projections(self, networks: Networks) -> Measured:
        """How much further apart two options are than the worse of them is from the plain network."""
        plain, options = self._options(networks)
        pairs = [(i, j) for i in (1, 2, 3) for j in (1, 2, 3) if i != j]
        return self._every(networks, [plain, *options], [{i: 2, j: -1, 0: -1} for i, j in pairs])

    def cost_of_shortcuts(self, networks: Networks) -> Measured:
        """How many more parameters and multiply-adds residual networks with option A have than plain ones."""
        plain, residual = (
            self._by_depth(networks, plain=True),
            self._by_depth(networks, plain=False),
        )
        free = {d: one for d, one in residual.items() if one.option == "A" and d in plain}
        if not free:
            _, other = self._pair(networks)
            raise NotRunError(
                "a residual network with option A beside a plain one is needed",
                (BASIC, other.depth, "A"),
            )
        some, apart = [], 0
        for depth, one in free.items():
            other = plain[depth]
            some += [other, one]
            apart += abs(one.parameters - other.parameters)
            apart += abs(one.multiply_adds - other.multiply_adds)
        figures = "; ".join(
            f"{one.name} {one.parameters:,} parameters, {one.multiply_adds:,} multiply-adds"
            for one in some
        )
        return Measured(Known(apart), some, figures)

    def deepest_fits(self, networks: Networks) -> Measured:
        """The training error of 1,202 layers."""
        deepest = self._at(networks, DEEPEST, BASIC)
        figures = _figures([deepest], "train")
        return Measured(rate(deepest.errors["train"]), [deepest], figures, what="the mean")

    def deepest_generalizes(self, networks: Networks) -> Measured:
        """The test error of 1,202 layers less that of 110."""
        some = self._each(networks, [(BASIC, DEEPEST, "A"), (BASIC, 110, "A")])
        return self._compared(networks, some, [1, -1], view_of(some))

    def bottlenecks(self, networks: Networks) -> Measured:
        """The test error of each bottleneck network less that of 34 layers with option B."""
        wanted = [(BASIC, 34, "B"), *((BOTTLENECK, depth, "B") for depth in BOTTLENECKS)]
        base, *some = self._each(networks, wanted)
        return self._every(networks, [base, *some], [{n: 1, 0: -1} for n in (1, 2, 3)])

    def bottleneck_trend(self, networks: Networks) -> Measured:
        """How far the test error rises from 50 to 152 layers, by a straight line over three depths."""
        some = self._each(networks, [(BOTTLENECK, depth, "B") for depth in BOTTLENECKS])
        return self._trend(networks, some, view_of(some))

    def residual_responses(self, networks: Networks) -> Measured:
        """The mean response of the residual network less the plain one's, at the greatest depth of both."""
        return _responses(self._pair(networks))

    def deeper_responses(self, networks: Networks) -> Measured:
        """The mean response of the deepest residual network less that of the shallowest."""
        *_, deepest = some = self._several(networks, plain=False)
        return _responses((deepest, some[0]))

    def equal_at_18(self, networks: Networks) -> Measured:
        """The residual network's test error less the plain one's, at 18 layers."""
        some = [self._at(networks, 18, BASIC), self._at(networks, 18, "plain")]
        return self._compared(networks, some, [1, -1], view_of(some))

    def faster_at_18(self, networks: Networks) -> Measured:
        """How many doublings more updates the residual network of 18 layers needs to half of chance's error."""
        some = [self._at(networks, 18, BASIC), self._at(networks, 18, "plain")]
        level = self.chance_pct / 2
        for one in some:
            if any(history[0]["train_error_pct"] <= level for history in one.histories):
                raise NotAskedError(
                    f"{one.name}'s first report is already at {level:.1f} % or below: a smaller "
                    "report_every_updates would tell when it came there"
                )
        times = [[updates_to(history, level) for history in one.histories] for one in some]
        if any(found is None for one in times for found in one):
            raise NotAskedError(f"not every network came to a training error of {level:.1f} %")
        logs = [[math.log2(found) for found in one if found] for one in times]
        figures = ", ".join(
            f"{one.name} {np.mean([t for t in found if t]):,.0f}"
            for one, found in zip(some, times, strict=True)
        )
        return Measured(
            _difference(*logs),
            some,
            f"updates to a training error of {level:.1f} %: {figures}",
        )

    def cheaper_than_vgg(self, networks: Networks) -> Measured:
        """The multiply-adds of 34 layers as a share of VGG-19's."""
        one = self._at(networks, 34, BASIC, option="A")
        share = one.multiply_adds / (paper.VGG_19_MULTIPLY_ADDS_G * 1e9)
        if not math.isclose(one.multiply_adds / 1e9, paper.MULTIPLY_ADDS_G[34], rel_tol=0.05):
            raise NotAskedError(f"{one.name} does not see images of 224x224 here")
        figures = f"{one.multiply_adds / 1e9:.2f} of {paper.VGG_19_MULTIPLY_ADDS_G} billion: {100 * share:.0f} %"
        return Measured(Known(share), [one], figures)


def own(wanted: OwnClaim, networks: Networks) -> Claim:
    """Returns a claim of params.yaml; `networks` are all of the study, of whatever recipe."""
    view, pair = wanted.on.removesuffix("_error_pct"), wanted.rows

    def measure(_: Networks) -> Measured:
        some = [one for name in pair for one in networks if name in one.rows]
        if len(some) < 2 or some[0] is some[1]:
            raise NotAskedError(f"{pair[0]} and {pair[1]} are seeds of one network")
        alike = [
            [
                o.errors[view]
                for o in networks
                if (o.family, o.is_plain, o.comparable)
                == (one.family, one.is_plain, one.comparable)
            ]
            for one in some
        ]
        estimate = combination([one.errors[view] for one in some], [1, -1], alike)
        return Measured(estimate, some, _figures(some, view))

    what = SCORES[view]
    match wanted:
        case Better():
            lower = f"more than {wanted.by:g} points lower" if wanted.by else "lower"
            text = f"The {what} of {pair[0]} is {lower} than that of {pair[1]}"
            return Claim(text, "params.yaml", "own", measure, "below", 0.0 - wanted.by / 100, False)
        case Equal():
            text = f"The {what}s of {pair[0]} and {pair[1]} are less than {wanted.within:g} points apart"
            return Claim(text, "params.yaml", "own", measure, "within", wanted.within / 100, False)
    assert_never(wanted)


def _responses(pair: tuple[Network, Network]) -> Measured:
    """Returns how much larger the first network's responses are, averaged over its layers."""
    for one in pair:
        if not one.responses:
            raise NotAskedError(f"{one.name}'s responses were not measured: `dvc repro`")
    each = [[float(np.mean(layers)) for layers in one.responses] for one in pair]
    figures = "mean standard deviation of the layers' outputs: " + ", ".join(
        f"{one.name} {np.mean(found):.3f}" for one, found in zip(pair, each, strict=True)
    )
    return Measured(_difference(*each), pair, figures)


def _difference(first: Sequence[float], second: Sequence[float]) -> Student:
    """Returns the difference of two means over seeds; raises NotAskedError where nothing tells how much they vary."""
    if min(len(first), len(second)) < 2:
        raise NotAskedError("it needs two seeds or more of each network")
    try:
        return means(first, second)
    except ValueError as error:
        raise NotAskedError(f"{error}: seeds that differ in nothing") from error


def view_of(networks: Networks) -> str:
    """Returns the view in which networks are tested: ten crops where there are photographs."""
    return TEN_CROPS if all(TEN_CROPS in one.errors for one in networks) else "test"


def _called(block: str, depth: int, option: str) -> str:
    kind = {"plain": "plain network", BOTTLENECK: "bottleneck network"}.get(
        block, "residual network"
    )
    with_option = "" if block == "plain" else f" with option {option}"
    return f"{kind} of {depth} layers{with_option}"


def _pct(errors: Errors) -> str:
    estimate: Estimate = rate(errors)
    low, high = estimate.interval()
    digits = 1 if high - low >= 0.005 else 2
    spread = f" ± {100 * errors.rates.std(ddof=1):.{digits}f}" if errors.seeds > 1 else ""
    return f"{100 * estimate.value:.{digits}f} %{spread}"


def _figures(networks: Networks, view: str) -> str:
    return f"{SCORES[view]}: " + ", ".join(
        f"{one.name} {_pct(one.errors[view])}" for one in networks
    )
