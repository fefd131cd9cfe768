"""What MLflow runs to load a model of ours: code and safetensors, no pickle.

This file lies in each model beside `networks/` (`pipeline.evaluation.classifier`) and `code.zip`, which has
those of our modules that it needs, so that a client needs the packages of requirements.txt and nothing else.
A model runs by its own code, also beside another model or in a clone of the project.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH = 100
OURS = "pipeline"


class Served(PythonModel):
    """A network or an ensemble: `image` (a file) or `pixels` in, `class` and `probabilities` out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the networks; raises what `Classifier.load` raises."""
        with _imports_from(context.artifacts["code"]):
            from pipeline.errors import DataError
            from pipeline.evaluation.classifier import Classifier, as_png

            self._classifier = Classifier.load(Path(context.artifacts["networks"]))
        self._as_png, self._error = as_png, DataError

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Returns for each line the most probable class, and the probability of each class by its name."""
        files = list(self._files(model_input))
        classes = self._classifier.classes
        found = [
            line
            for first in range(0, len(files), BATCH)
            for line in self._classifier.probabilities(files[first : first + BATCH], first)
        ]
        return pd.DataFrame({
            "class": [classes[line.argmax()] for line in found],
            "probabilities": [dict(zip(classes, line.tolist(), strict=True)) for line in found],
        })  # fmt: skip

    def _files(self, lines: pd.DataFrame) -> Iterator[bytes]:
        for number, line in enumerate(lines.to_dict("records")):
            image, pixels = line.get("image"), line.get("pixels")
            if isinstance(image, bytes):
                yield image
            elif isinstance(pixels, list | np.ndarray):
                try:
                    whole = np.array([[list(one) for one in row] for row in pixels], np.int64)
                    if ((whole < 0) | (whole > 255)).any():
                        raise ValueError(f"{whole.min()} to {whole.max()}, wanted 0 to 255")
                    yield self._as_png(whole.astype(np.uint8))
                except (self._error, OverflowError, TypeError, ValueError) as reason:
                    raise self._error(f"line {number}: pixels: {reason}") from reason
            else:
                raise self._error(
                    f"line {number}: wanted image (the bytes of a file; base64 in JSON) or pixels (height x "
                    "width x channels, 0 to 255)"
                )


@contextmanager
def _imports_from(code: str) -> Iterator[None]:
    """While the context lasts, our modules are those in a zip, whatever others of their names are imported."""

    def taken() -> dict[str, Any]:
        names = [name for name in sys.modules if name.partition(".")[0] == OURS]
        return {name: sys.modules.pop(name) for name in names}

    others = taken()
    sys.path.insert(0, code)
    try:
        yield
    finally:
        sys.path.remove(code)
        taken()
        sys.modules.update(others)


set_model(Served())
