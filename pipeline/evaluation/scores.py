"""Scores of predictions: errors with 95 % intervals, likelihood, calibration, confusion."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from pipeline.evaluation.outcomes import Array, Outcomes, outcomes
from pipeline.params import Evaluation

Interval = tuple[float, float]
Z_95 = 1.959963984540054  # of the normal distribution


def share_ci95(count: int, total: int) -> Interval:
    """Returns the exact 95 % interval of a share of independent images (Clopper and Pearson 1934).

    Of few errors the bootstrap's is too narrow: of none in 360 images it is [0, 0], this one [0, 0.0102].
    """
    low = betaincinv(count, total - count + 1, 0.025) if count else 0.0
    high = betaincinv(count + 1, total - count, 0.975) if count < total else 1.0
    return float(low), float(high)


def difference(worse: int, better: int, total: int) -> tuple[float, float]:
    """Returns a difference of two shares of the same images and its standard error (Agresti and Min 2005).

    `worse` images are counted in the first share alone, `better` in the second alone. Half an image is added to
    each of the four cells: without, no image apart gives the interval [0, 0], and 4 apart of 360 one above 0.
    """
    apart, images = worse + better + 1, total + 2
    mean = (worse - better) / images
    return mean, math.sqrt((apart / images - mean**2) / images)


def difference_ci95(worse: int, better: int, total: int) -> Interval:
    """Returns the 95 % interval of such a difference."""
    mean, se = difference(worse, better, total)
    return mean - Z_95 * se, mean + Z_95 * se


def pct(interval: Interval) -> list[float]:
    """Returns a fraction's interval in percent."""
    return [100 * interval[0], 100 * interval[1]]


@dataclass(frozen=True)
class Predictions:
    """What a network or an ensemble predicts for a split, in the split's order."""

    probabilities: Array
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def outcomes_of(predictions: Predictions) -> Outcomes:
    """Returns what scores need from predictions."""
    return outcomes(predictions.probabilities, predictions.labels)


def calibration(found: Outcomes, bins: int) -> tuple[NDArray[np.int64], Array, Array]:
    """Returns for equal bins of confidence the images (bins,), and their summed confidence and correctness.

    A reliability diagram shows the means (Guo et al. 2017, figure 1).
    """
    places = np.minimum((found.confidence * bins).astype(int), bins - 1)
    counts, confidence, correct = np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins)
    np.add.at(counts, places, 1)
    np.add.at(confidence, places, found.confidence)
    np.add.at(correct, places, found.predicted == found.labels)
    return counts, confidence, correct


def calibration_error(found: Outcomes, bins: int) -> float:
    """Returns the expected calibration error, a fraction (Guo et al. 2017, equation 3)."""
    _, confidence, correct = calibration(found, bins)
    return float(np.abs(correct - confidence).sum() / len(found.labels))


def confusion(found: Outcomes, classes: int) -> NDArray[np.int64]:
    """Returns counts by true class (rows) and predicted class (columns), int64 (classes, classes)."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (found.labels, found.predicted), 1)
    return matrix


def scores(found: Outcomes, classes: int, split: str, recipe: Evaluation) -> dict[str, Any]:
    """Returns the scores of a split as JSON-like values, named `<split>_<score>`.

    Errors are in percent; `_ci95` is a 95 % interval over images (not over seeds). The top-5 error
    is null for five classes or fewer.
    """
    said: dict[str, Any] = {"images": len(found.labels)}
    top = [("error_pct", 1)] + ([("top5_error_pct", 5)] if classes > 5 else [])
    for name, k in top:
        failures = found.wrong(k)
        said[name] = float(100 * failures.mean())
        said[f"{name}_ci95"] = pct(share_ci95(int(failures.sum()), len(failures)))
    said.setdefault("top5_error_pct", None)
    said["nll"] = float(-found.log_likelihood.mean())
    said["ece"] = calibration_error(found, recipe.calibration_bins)
    return {f"{split}_{name}": value for name, value in said.items()}


def gain_pct(better: Predictions, other: Predictions) -> tuple[float, list[float]]:
    """Returns by how many points `better` errs less than `other` on the same images, and the 95 % CI."""
    assert np.array_equal(better.ids, other.ids)
    mine, theirs = outcomes_of(better).wrong(), outcomes_of(other).wrong()
    lost, gained = int((theirs & ~mine).sum()), int((mine & ~theirs).sum())
    images = len(better.ids)
    return 100 * (lost - gained) / images, pct(difference_ci95(lost, gained, images))
