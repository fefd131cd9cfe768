"""Labeled images as arrays, as the readers of all kinds of data sets return them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sources.choosing import Left


@dataclass(frozen=True)
class Labelled:
    """`images` uint8 (N, H, W, C) and `labels` int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """A data set before it is split; `test` is None if the source has no test part.

    `left` is what was left out of the source, `modes` the number of files of each pixel mode.
    """

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled | None
    left: dict[str, Left] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
