"""Predictions on disk: logits, labels and image ids of val and test, without pickle."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.prepared import Labels
from pipeline.errors import DataError
from pipeline.evaluation.outcomes import softmax
from pipeline.evaluation.scores import Predictions
from pipeline.evaluation.tables import LOGITS, SINGLE, TRAIN, VIEWS, Table
from pipeline.files import write

SPLITS = ("val", "test")
TRAIN_WRONG = "train_wrong"


def save(path: Path, tables: Mapping[tuple[str, str], Table], labels: Mapping[str, Labels]) -> None:
    """Writes `<split>_labels` and `<split>_ids` of val and test, and their logits in each view.

    `tables` are keyed by split and view; the logits of the single view are named `<split>_logits`, those
    of another view `<split>_<view>_logits`. Of training images, `train_wrong` bool (N,) says which are
    classified wrongly.
    """
    columns: dict[str, NDArray[np.generic]] = {}
    for split in SPLITS:
        columns[f"{split}_labels"] = labels[split].labels
        columns[f"{split}_ids"] = labels[split].ids
    columns |= {_name(*which): table[LOGITS] for which, table in tables.items() if LOGITS in table}
    columns[TRAIN_WRONG] = tables[TRAIN, SINGLE]["rank"].astype(np.int64) >= 1
    out = io.BytesIO()
    np.savez_compressed(out, **columns)  # type: ignore[arg-type]
    write(path, out.getvalue())


def load(path: Path, split: str, view: str = SINGLE) -> Predictions:
    """Returns the predictions of val or test in a view; raises DataError if the file is missing or damaged."""
    with _opened(path) as file:
        return Predictions(
            softmax(file[_name(split, view)]), file[f"{split}_labels"], file[f"{split}_ids"]
        )


def wrong(path: Path) -> dict[str, NDArray[np.bool_]]:
    """Tells for each image whether it is classified wrongly, bool (N,), by split or `<split>_<view>`.

    Raises DataError if the file is missing or damaged.
    """
    with _opened(path) as file:
        found = {"train": file[TRAIN_WRONG]}
        for split in SPLITS:
            for view in VIEWS:
                if (name := _name(split, view)) in file:
                    place = split if view == SINGLE else f"{split}_{view}"
                    found[place] = file[name].argmax(axis=1) != file[f"{split}_labels"]
    return found


def of_ensemble(path: Path, kind: str) -> dict[str, Predictions]:
    """Returns an ensemble's predictions by split; `kind` is "declared" or "greedy".

    Raises DataError if the file, the stage `ensemble`'s, is missing or damaged.
    """
    with _opened(path) as file:
        return {
            split: Predictions(
                file[f"{kind}_{split}_probabilities"], file[f"{split}_labels"], file[f"{split}_ids"]
            )
            for split in SPLITS
        }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens predictions; whatever is wrong with them is a DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        stage = (
            path.parent.name if path.parent.name == "ensemble" else f"evaluate@{path.parent.name}"
        )
        raise DataError(
            f"{path}: no readable predictions ({error}): `dvc repro {stage}`"
        ) from error


def _name(split: str, view: str) -> str:
    return f"{split}_logits" if view == SINGLE else f"{split}_{view}_logits"
