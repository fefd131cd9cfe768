"""What an evaluation yields: a table for each split and view, and facts. Torch is not needed to read one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VIEWS = SINGLE, TEN_CROPS, SCALES = "single", "ten_crops", "scales"
TRAIN, LOGITS = "train", "logits"
Table = dict[str, NDArray[np.generic]]
"""Logits float32 (N, classes), or the columns of `Outcomes`, by name."""
Tables = dict[tuple[str, str], Table]
"""Tables by split and view."""


@dataclass(frozen=True)
class Evaluation:
    """All that is found out about a trained network.

    `responses` are those of its layers (figure 7), `costs` its parameters, multiply-adds and layers.
    """

    tables: Tables
    responses: list[float]
    costs: dict[str, int]
