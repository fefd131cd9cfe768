"""MLflow's database for tests: its tables are made once, which takes seconds, and copied for each test."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.storage.objects import Storage


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").get_experiment_by_name("resnet-study")
    return path


@pytest.fixture
def uri(
    storage: Storage, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """An MLflow without experiments, to which this process and those that it starts publish."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    address = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address
