"""Predictions on disk: logits, labels and image ids of val and test, without pickle."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.evaluation.scores import Predictions, softmax
from pipeline.evaluation.tables import LOGITS, SINGLE, Table
from pipeline.files import write

if TYPE_CHECKING:
    from pipeline.data.dataset import Dataset, Split

SPLITS = ("val", "test")


def save(path: Path, tables: Mapping[tuple[str, str], Table], arrays: "Dataset") -> None:
    """Writes `<split>_labels` and `<split>_ids` of val and test, and their logits in each view.

    `tables` are keyed by split and view; the logits of the single view are named `<split>_logits`, those
    of another view `<split>_<view>_logits`.
    """
    columns: dict[str, NDArray[np.generic]] = {}
    for split in SPLITS:
        part: Split = getattr(arrays, split)
        columns[f"{split}_labels"] = part.labels.numpy()
        columns[f"{split}_ids"] = part.ids.numpy()
    columns |= {_name(*which): table[LOGITS] for which, table in tables.items() if LOGITS in table}
    out = io.BytesIO()
    np.savez_compressed(out, **columns)  # type: ignore[arg-type]
    write(path, out.getvalue())


def load(path: Path, view: str = SINGLE) -> dict[str, Predictions]:
    """Returns the predictions in a view, for each split that has that view.

    Raises DataError if the file is damaged.
    """
    with _opened(path) as file:
        return {
            split: Predictions(
                softmax(file[_name(split, view)]), file[f"{split}_labels"], file[f"{split}_ids"]
            )
            for split in SPLITS
            if _name(split, view) in file
        }


def wrong(path: Path, view: str = SINGLE) -> NDArray[np.bool_] | None:
    """Tells for each test image whether a view classifies it wrongly, bool (N,); None if there is no such view.

    Raises DataError if the file is missing or damaged.
    """
    return _wrong(path, _name("test", view))


def wrong_together(path: Path) -> NDArray[np.bool_]:
    """Tells for each test image whether the declared ensemble classifies it wrongly, bool (N,).

    Raises DataError if the file, the stage `ensemble`'s, is missing or damaged.
    """
    found = _wrong(path, "declared_test_probabilities")
    if found is None:
        raise DataError(f"{path}: no predictions of the declared ensemble: `dvc repro ensemble`")
    return found


def _wrong(path: Path, scores: str) -> NDArray[np.bool_] | None:
    with _opened(path) as file:
        if scores not in file:
            return None
        found: NDArray[np.bool_] = file[scores].argmax(axis=1) != file["test_labels"]
        return found


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
