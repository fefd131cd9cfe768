"""What an evaluation yields: a table for each split and view. Torch is not needed to read one."""

import numpy as np
from numpy.typing import NDArray

VIEWS = SINGLE, TEN_CROPS, SCALES = "single", "ten_crops", "scales"
TRAIN, LOGITS = "train", "logits"
Table = dict[str, NDArray[np.generic]]
"""Logits float32 (N, classes), or the columns of `Outcomes`, by name."""
Tables = dict[tuple[str, str], Table]
"""Tables by split and view."""
