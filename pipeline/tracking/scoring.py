"""MLflow's scoring server for a model, as an application."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def app_of(model: Path) -> "ASGIApp":
    """Returns the application that `mlflow models serve` runs, for the model in a folder."""
    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app: ASGIApp = scoring_server.init(mlflow.pyfunc.load_model(str(model)))
        return app
