"""Ensembles: softmax probabilities averaged over networks; the greedy choice is made on val."""

from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.errors import DataError
from pipeline.evaluation.scores import Predictions, outcomes_of


def average(members: Iterable[Predictions]) -> Predictions:
    """Returns the mean of the members' probabilities; raises DataError if images differ.

    Of each member only the sum is kept, so that they may be read one after another.
    """
    rest = iter(members)
    total, count = next(rest), 1
    for member in rest:
        total, count = _sum(total, member), count + 1
    return _over(total, count)


def _sum(some: Predictions, other: Predictions) -> Predictions:
    if not (np.array_equal(some.ids, other.ids) and np.array_equal(some.labels, other.labels)):
        raise DataError(
            "members predict different images: they were evaluated on different data; "
            "run `dvc repro` so that all are evaluated on the present data"
        )
    return Predictions(some.probabilities + other.probabilities, some.labels, some.ids)


def _over(total: Predictions, count: int) -> Predictions:
    return Predictions(total.probabilities / count, total.labels, total.ids)


def quality(predictions: Predictions) -> tuple[float, float]:
    """Returns (error, negative log-likelihood): smaller is better, the error first."""
    found = outcomes_of(predictions)
    return float(found.wrong().mean()), float(-found.log_likelihood.mean())


def greedy(val: Mapping[str, Predictions]) -> list[str]:
    """Returns the members of the ensemble that greedy forward selection finds on validation.

    It begins with the best network and adds the one that helps most, each at most once, until none
    helps (Caruana et al. 2004, without replacement). Only validation predictions are used.
    """
    chosen: list[str] = []
    total, best = None, (np.inf, np.inf)
    while len(chosen) < len(val):
        sums = (
            (name, one if total is None else _sum(total, one))
            for name, one in val.items()
            if name not in chosen
        )
        found = {name: quality(_over(together, len(chosen) + 1)) for name, together in sums}
        name = min(found, key=lambda candidate: found[candidate])
        if found[name] >= best:
            break
        total = val[name] if total is None else _sum(total, val[name])
        chosen.append(name)
        best = found[name]
    return chosen
