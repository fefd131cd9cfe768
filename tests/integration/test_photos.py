"""A study of photographs by `dvc repro`: shards on real S3, kills, a damaged shard, three views."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
import torch
from mlflow import MlflowClient

from pipeline.data import dataset
from pipeline.models import weights
from pipeline.params import read_yaml
from pipeline.storage.layout import SHARDS, Instance, project
from pipeline.storage.objects import Storage
from tests.conftest import changed_params, copy_study, run_in, small_search
from tests.integration.conftest import publish_the_rest
from tests.integration.trainings import (
    caught,
    here,
    lives,
    result_of,
    start,
    store_of,
    update_of,
    wait_for,
)
from tests.photographs import images, small_study, tar

pytestmark = pytest.mark.integration
ROWS = ("small", "long")
UPDATES = 24


def photographs(folder: Path, document: dict) -> None:
    """Makes a study of photographs in a tar of it, without a search."""
    content = tar(folder / "photographs.tar", images(60, 10)).read_bytes()
    small_study(document, "photographs.tar", hashlib.sha256(content).hexdigest())
    document["tune"] = {}
    plain, long = document["models"].values()
    small = {"family": "cifar", "block": "plain", "depth": 8, "shortcut": "none"}
    document["models"] = {
        "small": {**plain, "network": small},  # the other has all that photographs have
        "long": {**long, "report_every_updates": 10},
    }
    document["ensemble"]["members"] = [*ROWS]


@pytest.fixture(scope="module", autouse=True)
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mirror, and a cache of its own for this module."""
    folder = tmp_path_factory.mktemp("archives")
    values = {"STUDY_MIRRORS": str(folder), "STUDY_CACHE_DIR": str(folder / "cache")}
    os.environ |= values
    yield folder
    for name in values:
        del os.environ[name]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, own_state: Path, archives: Path) -> Path:
    folder = copy_study(
        tmp_path_factory.mktemp("photos") / "study",
        lambda document: photographs(archives, document),
    )
    (folder / "schedules/long.yaml").write_text(
        f"shape: cosine\nbase_lr: 0.02\ntotal_updates: {UPDATES}\nwarmup: null\n"
    )
    for command in (("python", "-m", "infra.local", "up"), ("dvc", "repro", "fetch")):
        done = run_in(folder, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(study: Path) -> Path:
    """The study, run to its end, and in MLflow."""
    done = run_in(study, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    publish_the_rest(study, done.stdout)
    return study


def shards_of(storage: Storage) -> dict[str, object]:
    """Returns when each object of the shards was written."""
    pages = storage._client.get_paginator("list_objects_v2").paginate(
        Bucket=storage.bucket, Prefix=f"{project()}/{SHARDS}/"
    )
    return {o["Key"]: o["LastModified"] for page in pages for o in page.get("Contents", ())}


@pytest.mark.trial
def test_a_killed_prepare_goes_on_and_a_second_one_writes_nothing(study: Path, storage: Storage):
    process = start(study, "python", "-m", "stages.prepare")
    wait_for(lambda: len([key for key in shards_of(storage) if "/manifests/" in key]) >= 3)
    tasks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(lives, tasks)))  # they end with it
    before = shards_of(storage)
    done = run_in(study, "dvc", "repro", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    whole = shards_of(storage)
    assert len(whole) > len(before)
    finished = {key for key in before if "/manifests/" in key}
    assert {key: whole[key] for key in finished} == {key: before[key] for key in finished}
    digest = (study / "data/digest.json").read_bytes()
    (study / "data/arrays.safetensors").unlink()
    again = run_in(study, "python", "-m", "stages.prepare")
    assert again.returncode == 0, again.stderr
    assert shards_of(storage) == whole
    assert (study / "data/digest.json").read_bytes() == digest


def test_the_whole_study_runs_and_shows_crops_scales_and_ensembles(whole: Path, storage: Storage):
    facts = json.loads((whole / "data/digest.json").read_text())
    assert facts["images"] == {"train": 90, "val": 30, "test": 20}
    assert facts["oddities"]["undecodable"] == 0
    page = (whole / "report/index.html").read_text()
    assert "Crops and scales" in page and "shorter sides of 32, 48 pixels" in page
    assert "data:image/jpeg;base64," in page  # what every member gets wrong
    for row in ROWS:
        scores = json.loads((whole / f"scores/{row}/metrics.json").read_text())
        with np.load(whole / f"scores/{row}/predictions.npz") as file:
            for view in ("", "ten_crops_", "scales_"):
                logits, labels = file[f"test_{view}logits"], file["test_labels"]
                error = 100 * (logits.argmax(1) != labels).mean()
                assert scores[f"test_{view}error_pct"] == pytest.approx(error)
        assert weights.load(whole / f"runs/{row}").facts.image_size_px == (32, 32)
    together = json.loads((whole / "ensemble/metrics.json").read_text())["declared"]
    assert {
        "test_error_pct",
        "test_ten_crops_error_pct",
        "test_scales_error_pct",
    } <= together.keys()
    again = run_in(whole, "dvc", "repro")
    assert re.findall(r"Running stage '([^']+)'", again.stdout) == ["check", "handover"]


@pytest.mark.trial
def test_a_search_on_photographs_finds_a_schedule(whole: Path, storage: Storage):
    with changed_params(whole, lambda d: d.update(tune={"any": small_search("long")})):
        done = run_in(whole, "python", "-m", "stages.tune", "any")
    assert done.returncode == 0, done.stderr
    assert read_yaml(whole / "tuned/any.yaml")["total_updates"] == 8


@pytest.mark.trial
def test_again_on_photographs_packs_nothing(whole: Path, storage: Storage):
    before, weights_before = shards_of(storage), result_of(whole, "small")
    done = run_in(whole, "python", "-m", "pipeline.commands.again", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"Running stage '([^']+)'", done.stdout)
    assert ran == ["train@small", "evaluate@small"]
    assert json.loads((whole / "runs/small/model.json").read_text())["instance"] == 2
    assert shards_of(storage) == before
    assert result_of(whole, "small") == weights_before


@pytest.mark.trial
def test_a_training_killed_in_mid_epoch_ends_with_the_same_weights(whole: Path, storage: Storage):
    undisturbed = result_of(whole, "long")
    store = store_of(whole, "long")

    def begin() -> subprocess.Popen[str]:
        store.clear()
        return start(whole, "python", "-m", "stages.train", "long")

    # 320 images: in the middle of a pass
    caught(begin, lambda: 10 <= update_of(store) < UPDATES).is_killed()
    done = run_in(whole, "python", "-m", "stages.train", "long")
    assert done.returncode == 0, done.stderr
    assert "resumed at update" in done.stdout
    assert result_of(whole, "long") == undisturbed


def test_a_damaged_shard_in_the_bucket_is_named(whole: Path, storage: Storage, tmp_path: Path):
    data = dataset.load(whole / "data/arrays.safetensors")
    shard = data.train.images.shards[0]
    key = Instance(storage, SHARDS, shard.key).object_key(shard.sha256)
    content = storage.get(key)
    storage.put(key, content[:-9] + b"\0" * 9)
    store_of(whole, "long").clear()
    try:
        done = here(whole, "stages.train", "long", STUDY_CACHE_DIR=str(tmp_path))
    finally:
        storage.put(key, content)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "error: " in done.stderr and key in done.stderr and "sha256" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("row", ["small", pytest.param("long", marks=pytest.mark.trial)])
def test_an_exported_network_gives_torchs_values_and_lies_beside_the_model(
    whole: Path, storage: Storage, row: str
):
    done = run_in(whole, "python", "-m", "pipeline.commands.export", row)
    assert done.returncode == 0, done.stderr
    mlflow = MlflowClient(f"sqlite:///{whole}/mlflow.db")
    (experiment,) = mlflow.search_experiments(filter_string="name = 'resnet-study'")
    (run,) = mlflow.search_runs([experiment.experiment_id], f"attributes.run_name = '{row}'")
    assert run.info.status == "FINISHED"
    prefix = run.info.artifact_uri.replace("mlflow-artifacts:/", "mlflow/")
    for name in ("classifier.onnx", "backbone.onnx", "mean.npy", "classes.json"):
        there = storage.get(f"{prefix}/{name}")
        assert there == (whole / "export" / row / name).read_bytes()
    assert "model.safetensors" in {key.split("/")[-1] for key in storage.keys(prefix)}
    model, images = weights.load(whole / "runs" / row).model, torch.randn(3, 3, 80, 105)
    with torch.no_grad():
        wanted = {"classifier": [model(images)], "backbone": list(model.features(images).values())}
    for name, tensors in wanted.items():
        session = onnxruntime.InferenceSession(whole / f"export/{row}/{name}.onnx")
        found = session.run(None, {"images": images.numpy()})
        stages = 4 if row == "long" else 3
        assert len(found) == len(tensors) == (1 if name == "classifier" else stages)
        program = torch.export.load(whole / f"export/{row}/{name}.pt2").module()
        with torch.no_grad():
            again = program(images)
        for values, other, tensor in zip(
            found, again if isinstance(again, tuple) else [again], tensors, strict=True
        ):
            for exported in (torch.from_numpy(values), other):
                assert float((exported - tensor).abs().max()) < 1e-4 * float(tensor.abs().max())
