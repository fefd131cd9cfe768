"""What a network predicted for each image, as scores need it: nothing here decides about a score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScoreError
from pipeline.evaluation.tables import LOGITS, Table

Array = NDArray[np.float64]


def softmax(logits: NDArray[Any]) -> Array:
    """Returns probabilities float64 (N, classes) of logits; raises ScoreError if one is not finite."""
    if not np.isfinite(logits).all():
        images = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        raise ScoreError(
            f"the logits of {len(images)} of {len(logits)} images are not finite (the first is image "
            f"{images[0]}: {logits[images[0]].tolist()}): there is nothing to score; look at the "
            "training's history, and train in float32 or at a lower rate"
        )
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    result: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


@dataclass(frozen=True)
class Outcomes:
    """All that scores need for each image: far less than its probabilities for a thousand classes.

    `rank` int64 (N,): how many classes are more probable than its label (ties: the lower class first);
    its label's `log_likelihood` and the largest probability, `confidence`, float64 (N,); the `predicted`
    class and `labels`, int64 (N,).
    """

    rank: NDArray[np.int64]
    log_likelihood: Array
    confidence: Array
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]

    def wrong(self, k: int = 1) -> NDArray[np.bool_]:
        """Tells for each image whether its label is not among the k most probable."""
        result: NDArray[np.bool_] = self.rank >= k
        return result


def outcomes(probabilities: Array, labels: NDArray[np.int64]) -> Outcomes:
    """Returns what scores need from probabilities (N, classes); raises ScoreError if one is not finite.

    Every comparison with NaN is false, so such an image would count as correct.
    """
    if not np.isfinite(probabilities).all():
        raise ScoreError("a probability is not finite: there is nothing to score")
    own = probabilities[np.arange(len(labels)), labels]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > own[:, None]) | ((probabilities == own[:, None]) & before)
    return Outcomes(
        rank=ahead.sum(axis=1),
        log_likelihood=np.log(np.maximum(own, np.finfo(np.float64).tiny)),
        confidence=probabilities.max(axis=1),
        predicted=probabilities.argmax(axis=1),
        labels=labels,
    )


def outcomes_in(table: Table, labels: NDArray[np.int64]) -> Outcomes:
    """Returns what scores need from a split's table in a view."""
    if LOGITS in table:
        return outcomes(softmax(table[LOGITS]), labels)
    return Outcomes(**table)  # type: ignore[arg-type]
