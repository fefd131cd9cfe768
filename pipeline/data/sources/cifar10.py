"""Reads CIFAR-10's official archive, whose batches are pickles, without trusting it."""

import io
import math
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


class _Type:
    """In the place of `numpy.dtype`, which believes what a pickle says of it."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order, fields, flags: of no interest for bytes."""


class _Array:
    """In the place of `numpy.ndarray`: what a pickle says, from which an array is made once it is looked at."""

    said: tuple[object, ...] = (None, None, None)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, kind, in_columns, content = state
        self.said = (shape, kind, content if not in_columns else None)

    def pixels(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Returns the array if it is uint8 of a shape, else None."""
        found, kind, content = self.said
        if (
            found != shape or not isinstance(kind, _Type) or kind.code not in ("u1", "|u1", "B")
            or not isinstance(content, bytes | bytearray) or len(content) != math.prod(shape)
        ):  # fmt: skip
            return None
        return np.frombuffer(bytes(content), np.uint8).reshape(shape)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(content: object, kind: object, shape: object, order: object, *_: object) -> _Array:
    array = _Array()
    array.said = (shape, kind, content if order == "C" else None)
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # by which protocol 2 writes bytes
        raise DataError(f"the pickle encodes by {encoding!r}, wanted latin1")
    return text.encode("latin1")


# All that a pickled dictionary of numbers and a uint8 array needs, under numpy's old and new names; what stands for
# numpy's own only notes what it is told.
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
}
for _package in ("numpy.core", "numpy._core"):
    ADMITTED[_package + ".multiarray", "_reconstruct"] = _reconstruct
    ADMITTED[_package + ".numeric", "_frombuffer"] = _from_buffer


class RestrictedUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers, strings and notes of arrays, and nothing else."""

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
    data, said = batch.get("data"), batch.get("labels")
    if not isinstance(data, _Array) or not isinstance(said, list):
        raise DataError(f"{path}: {name}: no usable data and labels: wanted an array and a list")
    if not all(type(label) is int and 0 <= label < classes for label in said):
        raise DataError(
            f"{path}: {name}: labels must lie in 0..{classes - 1}, and be whole numbers"
        )
    labels, count = np.array(said, dtype=np.int64), len(said)
    if (pixels := data.pixels((count, PIXELS))) is None:
        shape, kind, _ = data.said
        raise DataError(
            f"{path}: {name}: data is {getattr(kind, 'code', None)} {shape}, wanted uint8 ({count}, {PIXELS})"
        )
    if count == 0:
        raise DataError(f"{path}: {name}: has no image")
    # rows hold the red plane, then green, then blue
    images = pixels.reshape(count, 3, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)
    return Labelled(np.ascontiguousarray(images), labels)
