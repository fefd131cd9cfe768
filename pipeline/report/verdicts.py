"""The paper's claims about its networks, each with a verdict and its evidence.

A verdict rests on intervals over images and, if a network has several seeds, over seeds; with one seed
their spread is unknown, and the evidence says so. A deep plain network that stays near chance failed to
train: at a small budget that is not the paper's degradation, which is about networks that do converge
(section 4.2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline import paper

NEAR_CHANCE = 0.8  # a training error above this share of the chance error: "failed to train"

PAPER_UPDATES = {"cifar": 64_000, "imagenet": 600_000}  # sections 4.2 and 3.4
SOURCES = {
    "cifar": {
        "degradation": "section 4.2, figure 6 left",
        "deeper": "section 4.2, table 6",
        "residual": "section 4.2, figure 6",
    },
    "imagenet": {
        "degradation": "section 4.1, figure 4 left",
        "deeper": "section 4.1, tables 2 and 3",
        "residual": "section 4.1, table 2",
    },
}
DEEPEST, DEEPEST_TRAIN_ERROR_PCT = 1202, 0.1  # section 4.2, "Exploring Over 1000 layers"

Group = dict[str, Any]
Verdict = dict[str, str]


def verdicts(groups: Sequence[Group], chance_error_pct: float) -> list[Verdict]:
    """Returns claim, source, verdict ("agrees", "disagrees", "undecided") and evidence.

    `groups` are those of `pipeline.report.seeds`; of several at the same depth the first one counts: the
    order of params.yaml decides, not the scores. Families of networks are never mixed.
    """
    return [
        verdict
        for family in SOURCES
        for verdict in _of_family(
            [group for group in groups if group["family"] == family], chance_error_pct
        )
    ]


def _of_family(groups: Sequence[Group], chance_error_pct: float) -> list[Verdict]:
    plain, residual = _by_depth(groups, "plain"), _by_depth(groups, "residual")
    found = []
    if len(plain) > 1:
        found.append(_degradation(plain[min(plain)], plain[max(plain)], chance_error_pct))
    usual = [depth for depth in residual if depth != DEEPEST]
    if len(usual) > 1:
        found.append(_no_degradation(residual[min(usual)], residual[max(usual)]))
    for depth in sorted(plain.keys() & residual.keys()):
        found.append(_residual_is_better(plain[depth], residual[depth]))
    found += _options(groups, plain)
    if DEEPEST in residual:
        found += _deepest(residual)
    whole = [group for group in groups if group["updates"] == PAPER_UPDATES[group["family"]]]
    found += [_published(group) for group in whole if group["paper_test_error_pct"] is not None]
    found += [_published_ten_crops(group) for group in whole if group["paper_ten_crops"]]
    return found


def _by_depth(groups: Sequence[Group], kind: str) -> dict[int, Group]:
    found: dict[int, Group] = {}
    for group in groups:
        if group["kind"] == kind:
            found.setdefault(group["depth"], group)
    return found


def _figure(group: Group, score: str) -> str:
    found = group[score]
    sd = "" if found["sd"] is None else f" ± {found['sd']:.1f}, {len(group['seeds'])} seeds"
    low, high = found["ci95"]
    return f"{group['name']} {found['mean']:.1f} %{sd} ({low:.1f} to {high:.1f})"


def _compare(group: Group, other: Group, score: str) -> tuple[int, str]:
    """Returns -1, 0 or 1 (group errs less, undecided, more; by their intervals) and the figures."""
    (low, high), (other_low, other_high) = group[score]["ci95"], other[score]["ci95"]
    sign = -1 if high < other_low else 1 if low > other_high else 0
    return sign, f"{_figure(group, score)}, {_figure(other, score)}"


def _budget(*groups: Group) -> str:
    paper_updates = PAPER_UPDATES[groups[0]["family"]]
    seeds = sorted({len(group["seeds"]) for group in groups})
    counts = "one seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    return f"{counts} of each, {groups[-1]['updates']:,} updates (the paper: {paper_updates:,})"


def _verdict(claim: str, source: str, agrees: bool, disagrees: bool, evidence: str) -> Verdict:
    verdict = "agrees" if agrees else "disagrees" if disagrees else "undecided"
    return {"claim": claim, "source": source, "verdict": verdict, "evidence": evidence}


def _degradation(shallow: Group, deep: Group, chance_error_pct: float) -> Verdict:
    sign, figures = _compare(deep, shallow, "train_error_pct")
    evidence = f"training error: {figures}; {_budget(shallow, deep)}"
    failed = deep["train_error_pct"]["mean"] > NEAR_CHANCE * chance_error_pct
    if failed:
        evidence += (
            f"; {deep['name']} failed to train in {deep['updates']:,} updates (chance is "
            f"{chance_error_pct:.0f} %), which is no evidence: the claim is about networks that converge"
        )
    return _verdict(
        "A deeper plain network has a higher training error", SOURCES[deep["family"]]["degradation"],
        sign > 0 and not failed, sign < 0, evidence,
    )  # fmt: skip


def _no_degradation(shallow: Group, deep: Group) -> Verdict:
    sign, figures = _compare(deep, shallow, "test_error_pct")
    return _verdict(
        "A deeper residual network has a lower test error", SOURCES[deep["family"]]["deeper"],
        sign < 0, sign > 0, f"test error: {figures}; {_budget(shallow, deep)}",
    )  # fmt: skip


def _residual_is_better(plain: Group, residual: Group) -> Verdict:
    sign, figures = _compare(residual, plain, "test_error_pct")
    return _verdict(
        f"At {plain['depth']} layers the residual network has a lower test error than the plain one",
        SOURCES[plain["family"]]["residual"], sign < 0, sign > 0,
        f"test error: {figures}; {_budget(plain, residual)}",
    )  # fmt: skip


def _options(groups: Sequence[Group], plain: dict[int, Group]) -> Iterator[Verdict]:
    """Yields table 3's two claims about shortcut options for each depth and recipe that has several."""
    families: dict[tuple[int, str], list[Group]] = {}
    for group in groups:
        if group["kind"] == "residual":
            families.setdefault((group["depth"], group["recipe"]), []).append(group)
    for (depth, _), options in families.items():
        if len(options) < 2 or depth not in plain:
            continue
        base, names = plain[depth], ", ".join(group["option"] for group in options)
        signs = [_compare(group, base, "test_error_pct")[0] for group in options]
        figures = ", ".join(_figure(group, "test_error_pct") for group in [base, *options])
        evidence = f"test error: {figures}; {_budget(base, *options)}"
        yield _verdict(
            f"At {depth} layers all shortcut options ({names}) have a lower test error than plain",
            "section 4.1, table 3", all(sign < 0 for sign in signs), 1 in signs, evidence,
        )  # fmt: skip
        means = [group["test_error_pct"]["mean"] for group in options]
        spread, gain = max(means) - min(means), base["test_error_pct"]["mean"] - max(means)
        decided = all(sign < 0 for sign in signs)
        yield _verdict(
            f"At {depth} layers the options ({names}) differ less than the worst of them gains over "
            "plain: projections are not essential",
            "section 4.1, table 3", decided and spread < gain, decided and spread >= gain,
            f"they differ by {spread:.1f} points and gain at least {gain:.1f}; {evidence}",
        )  # fmt: skip


def _deepest(residual: dict[int, Group]) -> Iterator[Verdict]:
    deepest = residual[DEEPEST]
    mean = deepest["train_error_pct"]["mean"]
    yield _verdict(
        f"{DEEPEST} layers can be optimized: a training error below {DEEPEST_TRAIN_ERROR_PCT} %",
        "section 4.2", mean < DEEPEST_TRAIN_ERROR_PCT, mean >= DEEPEST_TRAIN_ERROR_PCT,
        f"training error: {_figure(deepest, 'train_error_pct')}; {_budget(deepest)}",
    )  # fmt: skip
    if 110 in residual:
        sign, figures = _compare(deepest, residual[110], "test_error_pct")
        yield _verdict(
            f"{DEEPEST} layers have a higher test error than 110", "section 4.2, table 6",
            sign > 0, sign < 0, f"test error: {figures}; {_budget(residual[110], deepest)}",
        )  # fmt: skip


def _published(group: Group) -> Verdict:
    published, low = group["paper_test_error_pct"], group["test_error_pct"]["ci95"][0]
    if group["depth"] == 110 and len(group["seeds"]) > 1:
        published, _ = paper.RESNET_110_FIVE_RUNS_PCT  # table 6 has its best and its mean
    return _verdict(
        f"{group['name']} has the paper's test error of {published:.2f} % or less", "table 6",
        low <= published, low > published,
        f"test error: {_figure(group, 'test_error_pct')}; {_budget(group)}",
    )  # fmt: skip


def _published_ten_crops(group: Group) -> Verdict:
    published, low = group["paper_ten_crops"][0], group["test_ten_crops_error_pct"]["ci95"][0]
    return _verdict(
        f"{group['name']} has the paper's ten-crop error of {published:.2f} % or less",
        "tables 2 and 3", low <= published, low > published,
        f"test error, ten crops: {_figure(group, 'test_ten_crops_error_pct')}; {_budget(group)}",
    )  # fmt: skip
