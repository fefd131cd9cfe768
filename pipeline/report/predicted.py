"""What the predictions of networks and ensembles show beyond their scores: calibration, confusion, misses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.scores import calibration, confusion

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


def bins_of(found: Outcomes, bins: int) -> list[Bin]:
    """Returns the bins of confidence that have images, in order."""
    counts, confidence, correct = calibration(found, bins)
    return [
        {"images": int(n), "confidence": float(said / n), "accuracy": float(right / n)}
        for n, said, right in zip(counts, confidence, correct, strict=True)
        if n
    ]


def confusion_of(found: Outcomes, classes: int) -> list[list[int]] | None:
    """Returns counts by true class (rows) and predicted class; None for more than a hundred classes."""
    if classes > CONFUSION_CLASSES:
        return None
    matrix: list[list[int]] = confusion(found, classes).tolist()
    return matrix


def cells_of(matrix: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Returns true class, predicted class and count of the cells of a confusion matrix that are not 0."""
    return [
        (label, place, count)
        for label, row in enumerate(matrix)
        for place, count in enumerate(row)
        if count
    ]


def missed_by_all(
    members: Sequence[NDArray[np.bool_]], together: Outcomes, classes: Sequence[str]
) -> list[Missed]:
    """Returns the images that all members get wrong, the ones that the ensemble is surest of first.

    `members` say for each test image whether it is classified wrongly, bool (N,).
    """
    places = np.flatnonzero(np.logical_and.reduce(members))
    places = places[np.argsort(-together.confidence[places], kind="stable")]
    return [
        {
            "place": int(place),
            "label": classes[together.labels[place]],
            "predicted": classes[together.predicted[place]],
            "probability": float(together.confidence[place]),
        }
        for place in places
    ]


def rows_and_ensembles(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what has predictions of its own, by its name on the page."""
    found = {row["name"]: row for row in results["rows"]}
    for kind in ("declared", "greedy"):
        found[f"ensemble ({kind})"] = results["ensemble"][kind]
    return found
