"""What the predictions of networks and ensembles show beyond their scores: calibration, confusion, misses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from pipeline.evaluation.scores import Predictions, calibration, confusion, outcomes_of

CONFUSION_CLASSES = 100  # with more, the matrix is neither readable nor small
MOST_MISSED = 24  # images are shown


class Bin(TypedDict):
    """A bin of a reliability diagram: its images, their mean confidence and the share that is right."""

    images: int
    confidence: float
    accuracy: float


class Missed(TypedDict):
    """A test image that every declared member gets wrong: its index in the split, its class, and what for.

    `probability` is the ensemble's for `predicted`, the class that it takes the image for.
    """

    place: int
    label: str
    predicted: str
    probability: float


def bins_of(predictions: Predictions, bins: int) -> list[Bin]:
    """Returns the bins of confidence that have images, in order."""
    counts, confidence, correct = calibration(outcomes_of(predictions), bins)
    return [
        {"images": int(n), "confidence": float(said / n), "accuracy": float(right / n)}
        for n, said, right in zip(counts, confidence, correct, strict=True)
        if n
    ]


def confusion_of(predictions: Predictions) -> list[list[int]] | None:
    """Returns counts by true class (rows) and predicted class; None for more than a hundred classes."""
    classes = predictions.probabilities.shape[1]
    if classes > CONFUSION_CLASSES:
        return None
    found: list[list[int]] = confusion(outcomes_of(predictions), classes).tolist()
    return found


def missed_by_all(
    members: Sequence[NDArray[np.bool_]], together: Predictions, classes: Sequence[str]
) -> list[Missed]:
    """Returns the images that all members get wrong, the ones that the ensemble is surest of first.

    `members` say for each test image whether it is classified wrongly, bool (N,).
    """
    places = np.flatnonzero(np.logical_and.reduce(members))
    found = outcomes_of(together)
    places = places[np.argsort(-found.confidence[places], kind="stable")]
    return [
        {
            "place": int(place),
            "label": classes[found.labels[place]],
            "predicted": classes[found.predicted[place]],
            "probability": float(found.confidence[place]),
        }
        for place in places
    ]


def rows_and_ensembles(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what has predictions of its own, by its name on the page."""
    found = {row["name"]: row for row in results["rows"]}
    for kind in ("declared", "greedy"):
        found[f"ensemble ({kind})"] = results["ensemble"][kind]
    return found
