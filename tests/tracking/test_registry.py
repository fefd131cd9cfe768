"""Models of runs in MLflow, and the versions of registered models: each once, the best by validation."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import DataError, TrackingError
from pipeline.storage.objects import Storage
from pipeline.tracking import artifacts, results
from pipeline.tracking.tracker import Address, Tracker

NAME = "study-net"


def save(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    (folder / "data/weights").write_bytes(b"weights")


def tags(error: float, sha256: str = "a") -> dict[str, str]:
    return {"val_error_pct": str(error), "weights_sha256": sha256}


def published(storage: Storage, row: str, error: float, data: str = "data") -> None:
    tracker = Tracker(Address("study", "digest", data), storage.upload)
    child = tracker.child("training", row, f"key of {row} on {data}")
    tracker.model(child, row, "net", tags(error), save)


def best(uri: str) -> str:
    return str(MlflowClient(uri).get_model_version_by_alias(NAME, "best").version)


def test_each_model_is_there_once_and_the_best_on_validation_is_known(uri: str, storage: Storage):
    for row, error in (("net", 5.0), ("net-s2", 4.0), ("net-s3", 6.0), ("net-s2", 4.0)):
        published(storage, row, error)
    client = MlflowClient(uri)
    versions = client.search_model_versions(f"name = '{NAME}'")
    assert {str(one.version) for one in versions} == set("123")
    assert (
        len(
            client.search_logged_models(
                [client.get_experiment_by_name("resnet-study").experiment_id]
            )
        )
        == 3
    )
    assert best(uri) == "2"
    run = client.get_run(client.get_model_version(NAME, "2").run_id)
    assert run.data.tags["model"] == f"models:/{NAME}/2"
    for key in artifacts.in_bucket():
        assert storage.get(key)


def test_versions_of_other_data_or_by_hand_are_not_compared(uri: str, storage: Storage):
    published(storage, "net", 1.0, data="easy")
    MlflowClient(uri).create_model_version(NAME, "s3://somewhere")
    published(storage, "net", 5.0, data="hard")
    assert best(uri) == "3"


def test_an_upload_that_was_cut_off_is_done_again(
    uri: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    def cut_off(key: str, path: Path) -> None:
        raise OSError("gone")

    broken = Tracker(Address("study", "digest", "data"), cut_off)
    child = broken.child("training", "net", "key of net on data")
    with pytest.raises(TrackingError, match="gone"):
        broken.model(child, "net", "net", tags(5.0), save)
    assert artifacts.in_bucket() == {}
    published(storage, "net", 5.0)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("resnet-study").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert str(model.status) == "READY"
    assert len(artifacts.in_bucket()) == 2
    client.delete_run(model.source_run_id)  # as `make fsck` advises where one is damaged
    assert artifacts.in_bucket() == {}


def test_a_server_that_takes_no_models_takes_the_rest_and_it_is_told(uri: str, storage: Storage):
    def refuse(folder: Path) -> None:
        raise NotImplementedError("404")

    tracker = Tracker(Address("study", "digest", "data"), storage.upload)
    child = tracker.child("training", "net", "key")
    with pytest.raises(DataError, match="net: no model: MLflow"):
        results._register(tracker, child, "net", "net", tags(5.0), refuse)
    assert MlflowClient(uri).get_run(child.run_id).info.status == "FINISHED"
