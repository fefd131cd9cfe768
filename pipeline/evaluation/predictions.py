"""Predictions on disk: logits, labels and image ids of val and test, without pickle."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.data.arrays import Arrays, Split
from pipeline.errors import DataError
from pipeline.evaluation.scores import Predictions, softmax
from pipeline.files import write
from pipeline.models.predict import Precision, predict
from pipeline.progress import Progress

SPLITS = ("val", "test")


def predictions_of(
    model: nn.Module,
    split: Split,
    arrays: Arrays,
    precision: Precision,
    device: torch.device,
    label: str,
) -> NDArray[np.float32]:
    """Returns the logits float32 (N, classes) of a split, with progress."""
    model.to(device)
    logits = []
    with Progress(label, len(split), "images") as progress:
        for batch in predict(model, split.images.to(device), arrays.mean.to(device), precision):
            logits.append(batch.cpu())
            progress.advance(len(batch))
    result: NDArray[np.float32] = torch.cat(logits).numpy()
    return result


def save(path: Path, logits: dict[str, NDArray[np.float32]], arrays: Arrays) -> None:
    """Writes `<split>_logits`, `<split>_labels` and `<split>_ids` for val and test."""
    tables: dict[str, NDArray[np.generic]] = {}
    for split in SPLITS:
        part: Split = getattr(arrays, split)
        tables[f"{split}_logits"] = logits[split]
        tables[f"{split}_labels"] = part.labels.numpy()
        tables[f"{split}_ids"] = part.ids.numpy()
    out = io.BytesIO()
    np.savez_compressed(out, **tables)  # type: ignore[arg-type]
    write(path, out.getvalue())


def load(path: Path) -> dict[str, Predictions]:
    """Returns the predictions of val and test by split; raises DataError for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                split: Predictions(
                    softmax(file[f"{split}_logits"]), file[f"{split}_labels"], file[f"{split}_ids"]
                )
                for split in SPLITS
            }
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: no readable predictions ({error}): `dvc repro evaluate@{path.parent.name}`"
        ) from error
