"""Scores of predictions: errors with bootstrap intervals, likelihood, calibration, confusion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.params import Evaluation

Array = NDArray[np.float64]
Interval = tuple[float, float]


def softmax(logits: NDArray[Any]) -> Array:
    """Returns probabilities float64 (N, classes) of logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    result: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def wrong(probabilities: Array, labels: NDArray[np.int64], k: int = 1) -> NDArray[np.bool_]:
    """Tells for each image whether its label is not among the k most probable; ties go by class."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    result: NDArray[np.bool_] = ~(best == labels[:, None]).any(axis=1)
    return result


def bootstrap_ci95(values: NDArray[Any], recipe: Evaluation) -> Interval:
    """Returns the 95 % percentile bootstrap interval of the mean of `values` (N,).

    Resampling N images and counting how often each distinct value comes up is one multinomial
    draw, so it is exact and fast for errors (0 or 1) and paired differences (-1, 0 or 1).
    """
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    generator = np.random.default_rng(recipe.bootstrap_seed)
    share = counts / counts.sum()
    means = generator.multinomial(len(values), share, recipe.bootstrap_resamples) @ distinct
    low, high = np.percentile(means / len(values), [2.5, 97.5])
    return float(low), float(high)


def pct(interval: Interval) -> list[float]:
    """Returns a fraction's interval in percent."""
    return [100 * interval[0], 100 * interval[1]]


def calibration_error(probabilities: Array, labels: NDArray[np.int64], bins: int) -> float:
    """Returns the expected calibration error, a fraction (Guo et al. 2017, equation 3)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.zeros(bins)
    np.add.at(gap, places, right - confidence)
    return float(np.abs(gap).sum() / len(labels))


def log_likelihood(probabilities: Array, labels: NDArray[np.int64]) -> Array:
    """Returns the natural logarithm of each label's probability, float64 (N,)."""
    chosen = probabilities[np.arange(len(labels)), labels]
    result: Array = np.log(np.maximum(chosen, np.finfo(np.float64).tiny))
    return result


def confusion(probabilities: Array, labels: NDArray[np.int64]) -> list[list[int]]:
    """Returns counts by true class (rows) and predicted class (columns)."""
    classes = probabilities.shape[1]
    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
    return [[int(count) for count in row] for row in matrix]


@dataclass(frozen=True)
class Predictions:
    """What a network or an ensemble says of a split, in the split's order."""

    probabilities: Array
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def scores(predictions: Predictions, split: str, recipe: Evaluation) -> dict[str, Any]:
    """Returns the scores of a split as JSON-like values, named `<split>_<score>`.

    Errors are in percent; `_ci95` is a 95 % interval over images (not over seeds). The top-5 error
    is null where there are five classes or fewer.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    found: dict[str, Any] = {"images": len(labels)}
    top = [("error_pct", 1)] + ([("top5_error_pct", 5)] if probabilities.shape[1] > 5 else [])
    for name, k in top:
        failures = wrong(probabilities, labels, k)
        found[name] = float(100 * failures.mean())
        found[f"{name}_ci95"] = pct(bootstrap_ci95(failures, recipe))
    found.setdefault("top5_error_pct", None)
    found["nll"] = float(-log_likelihood(probabilities, labels).mean())
    found["ece"] = calibration_error(probabilities, labels, recipe.calibration_bins)
    found["confusion"] = confusion(probabilities, labels)
    return {f"{split}_{name}": value for name, value in found.items()}


def gain_pct(
    better: Predictions, other: Predictions, recipe: Evaluation
) -> tuple[float, list[float]]:
    """Returns by how many points `better` errs less than `other` on the same images, and its CI."""
    assert np.array_equal(better.ids, other.ids)
    difference = wrong(other.probabilities, other.labels).astype(int) - wrong(
        better.probabilities, better.labels
    )
    return float(100 * difference.mean()), pct(bootstrap_ci95(difference, recipe))
