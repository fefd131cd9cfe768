"""What MLflow runs to load a model of ours: code and safetensors, no pickle.

This file lies in each model beside `networks/` (`pipeline.evaluation.classifier`) and `code.zip`, which has
those of our modules that it needs, so that a client needs the packages of requirements.txt and nothing else.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH = 100


class Served(PythonModel):
    """A network or an ensemble: `image` (a file) or `pixels` in, `class` and `probabilities` out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the networks; raises what `Classifier.load` raises."""
        if "pipeline" not in sys.modules:  # in a clone, its own
            sys.path.insert(0, context.artifacts["code"])
        from pipeline.evaluation.classifier import Classifier

        self._classifier = Classifier.load(Path(context.artifacts["networks"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Returns for each line the most probable class, and the probability of each class by its name."""
        files = list(_files(model_input))
        classes = self._classifier.classes
        parts = (files[first : first + BATCH] for first in range(0, len(files), BATCH))
        found = [line for part in parts for line in self._classifier.probabilities(part)]
        return pd.DataFrame({
            "class": [classes[line.argmax()] for line in found],
            "probabilities": [dict(zip(classes, line.tolist(), strict=True)) for line in found],
        })  # fmt: skip


def _files(lines: pd.DataFrame) -> Iterator[bytes]:
    from pipeline.errors import DataError
    from pipeline.evaluation.classifier import as_png

    for number, line in enumerate(lines.to_dict("records")):
        image, pixels = line.get("image"), line.get("pixels")
        if isinstance(image, bytes):
            yield image
        elif isinstance(pixels, list | np.ndarray):
            yield as_png(np.array([[list(one) for one in row] for row in pixels], np.uint8))
        else:
            raise DataError(
                f"line {number}: wanted image (the bytes of a file; base64 in JSON) or pixels (height x "
                "width x channels, 0 to 255)"
            )


set_model(Served())
