"""Ensembles."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluation import averaging, predictions
from pipeline.evaluation.averaging import average, greedy
from pipeline.evaluation.scores import Predictions

LABELS = np.array([0, 0, 1, 1])
IDS = np.arange(4)


def said(*first_class: float) -> Predictions:
    first = np.array(first_class)
    return Predictions(np.stack([first, 1 - first], axis=1), LABELS, IDS)


def test_probabilities_are_averaged():
    both = average([said(1.0, 0.2, 0.4, 0.0), said(0.6, 0.6, 0.0, 0.2)])
    assert both.probabilities[:, 0] == pytest.approx([0.8, 0.4, 0.2, 0.1])


def test_members_of_other_images_are_refused():
    other = Predictions(said(1, 1, 0, 0).probabilities, LABELS, IDS + 1)
    with pytest.raises(DataError, match="different images"):
        average([said(1, 1, 0, 0), other])


def test_greedy_takes_what_helps_and_stops():
    val = {
        "right-on-three": said(0.9, 0.9, 0.1, 0.55),
        "right-on-the-fourth": said(0.45, 0.6, 0.4, 0.0),
        "useless": said(0.5, 0.5, 0.5, 0.5),
    }
    assert greedy(val) == ["right-on-three", "right-on-the-fourth"]


def test_greedy_is_given_no_test_predictions():
    assert list(inspect.signature(greedy).parameters) == ["val"]
    assert "test" not in inspect.getsource(averaging.quality)


def test_a_pickle_is_never_read_as_predictions(tmp_path: Path):
    np.savez(tmp_path / "predictions.npz", val_logits=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="no readable predictions"):
        predictions.load(tmp_path / "predictions.npz", "val")
