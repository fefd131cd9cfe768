"""Scores against plain definitions."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from pipeline.errors import ScoreError
from pipeline.evaluation.outcomes import outcomes, softmax
from pipeline.evaluation.scores import (
    Predictions,
    calibration_error,
    confusion,
    difference_ci95,
    gain_pct,
    outcomes_of,
    scores,
    share_ci95,
)
from pipeline.params import Evaluation

RECIPE = Evaluation(scales_px=None, calibration_bins=10)


def predictions(rng: np.random.Generator, count: int = 500, classes: int = 8) -> Predictions:
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1
    return Predictions(softmax(logits), labels, np.arange(count))


def test_scores_are_scikit_learns(rng: np.random.Generator):
    said = predictions(rng)
    found = scores(outcomes_of(said), 8, "test", RECIPE)
    classes = range(8)
    for name, k in (("test_error_pct", 1), ("test_top5_error_pct", 5)):
        wanted = top_k_accuracy_score(said.labels, said.probabilities, k=k, labels=classes)
        assert found[name] == pytest.approx(100 * (1 - wanted))
    assert found["test_nll"] == pytest.approx(log_loss(said.labels, said.probabilities))
    wanted = confusion_matrix(said.labels, said.probabilities.argmax(1))
    assert confusion(outcomes_of(said), 8).tolist() == wanted.tolist()


def test_top_5_of_five_classes_says_nothing(rng: np.random.Generator):
    said = scores(outcomes_of(predictions(rng, classes=5)), 5, "val", RECIPE)
    assert said["val_top5_error_pct"] is None


def test_ties_go_by_class():
    found = outcomes(np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]), np.array([0, 1]))
    assert found.rank.tolist() == [0, 1]
    assert found.predicted.tolist() == [0, 0]


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    # bin of 0.9: right half the time; bin of 0.6: always
    assert calibration_error(outcomes(probabilities, labels), 10) == pytest.approx(
        0.5 * 0.4 + 0.5 * 0.4
    )


def test_an_error_has_its_exact_interval():
    """The percentile bootstrap of no error is [0, 0]; at 0.2 % of 360 images it covers half of the time."""
    assert share_ci95(0, 360) == pytest.approx((0, 0.01019), abs=1e-5)
    assert share_ci95(360, 360) == pytest.approx((1 - 0.01019, 1), abs=1e-5)
    found = stats.binomtest(7, 360).proportion_ci(0.95, "exact")
    assert share_ci95(7, 360) == pytest.approx((found.low, found.high))


def test_a_gain_is_paired_and_its_interval_covers_as_often_as_it_says(rng: np.random.Generator):
    said = predictions(rng)
    gain, (low, high) = gain_pct(said, said)
    assert gain == 0 and low < 0 < high  # the bootstrap's is [0, 0]
    low, high = difference_ci95(4, 0, 360)
    assert low < 0 < high  # by the exact test p = 0.125; the bootstrap's is above 0
    better = Predictions(np.eye(8)[said.labels], said.labels, said.ids)
    gain, (low, high) = gain_pct(better, said)
    assert gain == pytest.approx(100 * outcomes_of(said).wrong().mean())
    assert 0 < low < gain < high
    for worse, fewer in ((0.01, 0.0), (0.03, 0.03), (0.01, 0.002)):
        drawn = rng.multinomial(360, [worse, fewer, 1 - worse - fewer], 2000)
        found = [difference_ci95(int(one), int(other), 360) for one, other, _ in drawn]
        inside = sum(low <= worse - fewer <= high for low, high in found)
        assert stats.binom.cdf(inside, 2000, 0.95) > 0.001


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_never_scored(rng: np.random.Generator, value: float):
    logits = rng.normal(size=(10, 4))
    logits[7, 2] = value
    with pytest.raises(ScoreError, match=r"1 of 10 images are not finite .*the first is image 7"):
        softmax(logits)


def test_a_probability_that_is_not_finite_is_never_counted_as_right():
    probabilities = np.full((3, 4), 0.25)
    probabilities[1] = np.nan
    with pytest.raises(ScoreError, match="not finite"):
        outcomes(probabilities, np.zeros(3, np.int64))
