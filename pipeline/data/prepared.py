"""The facts about a prepared data set, read without loading its images or importing torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pipeline.errors import DataError

LABELS = "_labels"


@dataclass(frozen=True)
class Prepared:
    """Digest, classes and per-pixel mean float32 (H, W, C), for photographs that of the thumbnails."""

    digest: str
    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    is_sharded: bool

    @property
    def channels(self) -> int:
        """The number of color channels."""
        return int(self.mean.shape[-1])

    def input_size(self, crop_px: int | None) -> tuple[int, int]:
        """Returns height and width of a network's input in the single view."""
        if self.is_sharded:
            assert crop_px is not None  # ensured by pipeline.params
            return crop_px, crop_px
        return int(self.mean.shape[0]), int(self.mean.shape[1])


@dataclass(frozen=True)
class Labels:
    """The `labels` and `ids` int64 (N,) of a split, as `pipeline.data.dataset.Split` has them."""

    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def labels(path: Path) -> dict[str, Labels]:
    """Returns the labels of each split of the data set in a file; raises DataError as `look` does."""
    with _opened(path) as file:
        splits = [name.removesuffix(LABELS) for name in file.keys() if name.endswith(LABELS)]  # noqa: SIM118
        return {
            split: Labels(file.get_tensor(f"{split}{LABELS}"), file.get_tensor(f"{split}_ids"))
            for split in splits
        }


def look(path: Path) -> Prepared:
    """Returns the facts about the data set in a file; raises DataError if there is none."""
    with _opened(path) as file:
        return Prepared(
            digest=file.metadata()["digest"],
            classes=tuple(json.loads(file.get_tensor("classes").tobytes())),
            mean=file.get_tensor("mean"),
            is_sharded="train_images" not in file.keys(),  # noqa: SIM118 - not a dict
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: no prepared data ({error}): run `dvc repro prepare`") from error
