"""Verdicts are honest."""

from typing import Any

from pipeline.report.verdicts import verdicts


def row(kind: str, depth: int, error: float, train: float | None = None) -> dict[str, Any]:
    train = error if train is None else train
    return {
        "name": f"{kind}-{depth}", "kind": kind, "depth": depth,
        "scores": {
            "updates": 100,
            "test_error_pct": error, "test_error_pct_ci95": [error - 1, error + 1],
            "train_error_pct": train, "train_error_pct_ci95": [train - 1, train + 1],
        },
    }  # fmt: skip


def test_a_plain_network_at_chance_is_a_failure_to_train_not_a_proof():
    (verdict,) = verdicts([row("plain", 20, 10), row("plain", 56, 89)], 90)
    assert verdict["verdict"] == "undecided"
    assert "failed to train" in verdict["evidence"]


def test_degradation_needs_a_deep_network_that_trained():
    (verdict,) = verdicts([row("plain", 20, 10), row("plain", 56, 15)], 90)
    assert verdict["verdict"] == "agrees"


def test_overlapping_intervals_decide_nothing():
    found = verdicts([row("plain", 20, 10), row("residual", 20, 9)], 90)
    assert [verdict["verdict"] for verdict in found] == ["undecided"]


def test_a_deeper_residual_network_that_errs_more_disagrees():
    (verdict,) = verdicts([row("residual", 20, 9), row("residual", 56, 15)], 90)
    assert verdict["verdict"] == "disagrees"
    assert "one seed of each, 100 updates (the paper: 64,000)" in verdict["evidence"]


def test_a_study_without_pairs_says_nothing():
    assert verdicts([row("plain", 20, 10)], 90) == []
