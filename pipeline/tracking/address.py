"""Where MLflow is."""

import os
from pathlib import Path


def tracking_uri(root: Path) -> str:
    """Returns `MLFLOW_TRACKING_URI`, or SQLite beside the study."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"
