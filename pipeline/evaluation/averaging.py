"""Ensembles: softmax probabilities averaged over networks; the greedy choice is made on val."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import DataError
from pipeline.evaluation.scores import Predictions, outcomes_of


def average(members: Sequence[Predictions]) -> Predictions:
    """Returns the mean of the members' probabilities; raises DataError if images differ."""
    first = members[0]
    for member in members[1:]:
        if not np.array_equal(member.ids, first.ids) or not np.array_equal(
            member.labels, first.labels
        ):
            raise DataError(
                "members predict different images: they were evaluated on different data; "
                "run `dvc repro` so that all are evaluated on the present data"
            )
    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return Predictions(probabilities, first.labels, first.ids)


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
    best = (np.inf, np.inf)
    while len(chosen) < len(val):
        trials = {
            name: quality(average([val[member] for member in [*chosen, name]]))
            for name in val
            if name not in chosen
        }
        name = min(trials, key=lambda candidate: trials[candidate])
        if trials[name] >= best:
            break
        chosen.append(name)
        best = trials[name]
    return chosen
