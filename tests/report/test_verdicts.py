"""Verdicts are honest."""

from typing import Any

import pytest

from pipeline.report.seeds import groups
from pipeline.report.verdicts import verdicts


def row(
    kind: str, depth: int, error: float, train: float | None = None, **changes: Any
) -> dict[str, Any]:
    train = error if train is None else train
    made = {
        "name": f"{kind}-{depth}", "kind": kind, "depth": depth, "seed": 1, "recipe": "r",
        "option": "none" if kind == "plain" else "A", "paper_test_error_pct": None,
        "family": "cifar", "paper_ten_crops": None,
        "scores": {
            "updates": 100,
            "test_error_pct": error, "test_error_pct_ci95": [error - 1, error + 1],
            "val_error_pct": error, "val_error_pct_ci95": [error - 1, error + 1],
            "train_error_pct": train, "train_error_pct_ci95": [train - 1, train + 1],
        },
        **changes,
    }  # fmt: skip
    return {"group": f"{kind}-{depth}-{made['option']}", **made}


def said(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return verdicts(groups(rows), 90)


def test_a_plain_network_at_chance_is_a_failure_to_train_not_a_proof():
    (verdict,) = said([row("plain", 20, 10), row("plain", 56, 89)])
    assert verdict["verdict"] == "undecided"
    assert "failed to train" in verdict["evidence"]


def test_degradation_needs_a_deep_network_that_trained():
    (verdict,) = said([row("plain", 20, 10), row("plain", 56, 15)])
    assert verdict["verdict"] == "agrees"


def test_overlapping_intervals_decide_nothing():
    found = said([row("plain", 20, 10), row("residual", 20, 9)])
    assert [verdict["verdict"] for verdict in found] == ["undecided"]


def test_a_deeper_residual_network_that_errs_more_disagrees():
    (verdict,) = said([row("residual", 20, 9), row("residual", 56, 15)])
    assert verdict["verdict"] == "disagrees"
    assert "one seed of each, 100 updates (the paper: 64,000)" in verdict["evidence"]


def test_a_study_without_pairs_says_nothing():
    assert said([row("plain", 20, 10)]) == []


def seeds(kind: str, depth: int, *errors: float) -> list[dict[str, Any]]:
    return [
        row(kind, depth, error, name=f"{kind}-{depth}-s{seed}", seed=seed)
        for seed, error in enumerate(errors, start=1)
    ]


def test_rows_that_differ_in_their_seed_are_one_group():
    (group,) = groups(seeds("residual", 110, 6.0, 7.0, 8.0))
    assert group["rows"] == ["residual-110-s1", "residual-110-s2", "residual-110-s3"]
    assert group["test_error_pct"]["mean"] == 7
    assert group["test_error_pct"]["sd"] == 1
    low, high = group["test_error_pct"]["ci95"]
    assert (high - low) / 2 == pytest.approx((1 + 1.96**2 / 3) ** 0.5)


def test_one_seed_has_no_standard_deviation():
    (group,) = groups(seeds("residual", 110, 6.0))
    assert group["test_error_pct"] == {"mean": 6.0, "sd": None, "ci95": [5.0, 7.0]}


def test_seeds_that_scatter_decide_nothing():
    calm = said([*seeds("plain", 20, 15, 15.2), *seeds("residual", 20, 10, 10.2)])
    assert [verdict["verdict"] for verdict in calm] == ["agrees"]
    assert "2 seeds of each" in calm[0]["evidence"]
    wild = said([*seeds("plain", 20, 11, 19), *seeds("residual", 20, 6, 14)])
    assert [verdict["verdict"] for verdict in wild] == ["undecided"]


def options(a: float, b: float, c: float) -> list[str]:
    rows = [row("plain", 20, 30)]
    rows += [
        row("residual", 20, error, option=option, name=option)
        for option, error in (("A", a), ("B", b), ("C", c))
    ]
    return [verdict["verdict"] for verdict in said(rows)]


def test_the_options_are_compared_with_plain_and_with_each_other():
    assert options(20, 19.5, 19) == ["agrees", "agrees", "agrees"]
    assert options(26, 15, 10) == ["agrees", "agrees", "disagrees"]
    assert options(29.5, 20, 20) == ["undecided", "undecided", "undecided"]
    assert options(40, 20, 20) == ["disagrees", "disagrees", "undecided"]


def test_1202_layers_train_but_err_more_than_110():
    found = said([row("residual", 110, 4, 0.3), row("residual", 1202, 7.9, 0.05)])
    assert [verdict["verdict"] for verdict in found] == ["agrees", "agrees"]


def test_table_6_is_a_yardstick_only_at_its_own_budget():
    published = row("residual", 20, 8.6, paper_test_error_pct=8.75)
    assert said([published]) == []
    published["scores"]["updates"] = 64_000
    assert [verdict["verdict"] for verdict in said([published])] == ["agrees"]
    published["paper_test_error_pct"] = 5.0
    assert [verdict["verdict"] for verdict in said([published])] == ["disagrees"]


def test_families_do_not_mix_and_have_their_own_sources():
    rows = [
        row("plain", 20, 10),
        row("plain", 18, 30, family="imagenet"),
        row("plain", 34, 40, family="imagenet"),
    ]
    (verdict,) = said(rows)
    assert verdict["source"] == "section 4.1, figure 4 left"
    assert "(the paper: 600,000)" in verdict["evidence"]


def test_tables_2_and_3_are_a_yardstick_only_at_their_own_budget():
    short, whole = (
        row("residual", 34, 30, family="imagenet", paper_ten_crops=(25.03, 7.76), option=option)
        for option in "AB"
    )
    whole["scores"] |= {
        "updates": 600_000, "test_ten_crops_error_pct": 24.9,
        "test_ten_crops_error_pct_ci95": [24.6, 25.2],
    }  # fmt: skip
    (verdict,) = said([short, whole])
    assert verdict["verdict"] == "agrees"
    assert "ten-crop error of 25.03 %" in verdict["claim"]
