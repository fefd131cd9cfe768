"""Reads CIFAR-10's official archive, whose batches are pickles, without trusting it."""

import codecs
import io
import pickle
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sources.archives import members
from pipeline.data.sources.images import Images, Labelled
from pipeline.errors import DataError

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
META = "batches.meta"
SIDE_PX = 32
PIXELS = 3 * SIDE_PX * SIDE_PX

# All that a pickled dictionary of numbers and a uint8 array needs, under numpy's old and new names.
ADMITTED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("_codecs", "encode"): codecs.encode,
}
for _package in ("numpy.core", "numpy._core"):
    ADMITTED[_package + ".multiarray", "_reconstruct"] = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    ADMITTED[_package + ".numeric", "_frombuffer"] = np._core.numeric._frombuffer  # type: ignore[attr-defined]


class RestrictedUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers, strings and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns an admitted constructor; raises DataError for any other."""
        if (module, name) not in ADMITTED:
            raise DataError(
                f"the pickle asks for {module}.{name}, which no CIFAR-10 batch needs: "
                "it may be malicious; do not use this archive"
            )
        return ADMITTED[module, name]


def read(path: Path) -> Images:
    """Returns the images of a cifar-10-batches-py archive; raises DataError if it is not one."""
    wanted = {*TRAIN_BATCHES, TEST_BATCH, META}
    found: dict[str, dict[str, Any]] = {}
    for name, content in members(path):
        if (stem := PurePosixPath(name).name) in wanted:
            found[stem] = _unpickle(path, name, content)
    if missing := sorted(wanted - found.keys()):
        raise DataError(
            f"{path}: has no {', '.join(missing)}, wanted CIFAR-10's python version "
            "(cifar-10-batches-py): check data.archive in params.yaml"
        )
    try:
        classes = tuple(_text(name) for name in found[META]["label_names"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: {META} has no usable label_names ({error!r})") from error
    batches = [_batch(path, name, found[name], len(classes)) for name in TRAIN_BATCHES]
    train = Labelled(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    return Images(classes, train, _batch(path, TEST_BATCH, found[TEST_BATCH], len(classes)))


def _unpickle(path: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        # bytes: Python 2 wrote the official archive, and its strings are not text
        value = RestrictedUnpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path}: {name}: {error}") from None
    except Exception as error:
        raise DataError(
            f"{path}: {name}: not a readable pickle ({type(error).__name__}: {error}): "
            "fetch the archive again, `dvc repro -f fetch`"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: {name}: found a {type(value).__name__}, wanted a dictionary")
    return {_text(key): entry for key, entry in value.items()}


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _batch(path: Path, name: str, batch: dict[str, Any], classes: int) -> Labelled:
    try:
        pixels: NDArray[np.uint8] = batch["data"]
        labels = np.asarray(batch["labels"], dtype=np.int64)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: {name}: no usable data and labels ({error!r})") from error
    count = len(labels)
    if getattr(pixels, "dtype", None) != np.uint8 or pixels.shape != (count, PIXELS):
        raise DataError(
            f"{path}: {name}: data is {getattr(pixels, 'dtype', None)} "
            f"{getattr(pixels, 'shape', None)}, wanted uint8 ({count}, {PIXELS})"
        )
    if count == 0 or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{path}: {name}: labels must lie in 0..{classes - 1}")
    # rows hold the red plane, then green, then blue
    images = pixels.reshape(count, 3, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)
    return Labelled(np.ascontiguousarray(images), labels)
