"""What a classifier says of image files is what evaluation says of the same images."""

import io
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from pipeline import params, paths
from pipeline.data.dataset import Split
from pipeline.data.feeding import shown
from pipeline.errors import DataError
from pipeline.evaluation import views
from pipeline.evaluation.classifier import Classifier, as_png
from pipeline.evaluation.outcomes import softmax
from pipeline.models import weights
from pipeline.models.networks import build
from pipeline.models.weights import Trained
from pipeline.params import CifarNetwork, ImageNetNetwork
from pipeline.tracking import results
from tests.checkpoints import model_facts
from tests.conftest import REPO
from tests.photographs import prepared

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "ox")


def network(seed: int, channels: int) -> Trained:
    """A network for images of 8x8, whose batch norms have statistics, as a trained one's have."""
    row = CifarNetwork(family="cifar", block="basic", depth=8, shortcut="A")
    facts = model_facts(row, channels=channels, classes=CLASSES, image_size_px=(8, 8))
    mean = torch.from_numpy(images(channels).mean(axis=0, dtype=np.float32))
    model = build(row, channels, 3, seed=seed).train()
    with torch.no_grad():
        for _ in range(50):
            model((torch.from_numpy(images(channels)) - mean).permute(0, 3, 1, 2))
    return Trained(model.eval(), mean, facts)


def images(channels: int, count: int = 7, side: int = 8) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def wanted(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    split = Split(torch.from_numpy(pixels), labels, labels)
    done = views.logits(trained, "single", split, 6, None, "float32", CPU, lambda count: None)
    return softmax(done)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_classified_as_by_evaluation(channels: int):
    members = tuple(network(seed, channels) for seed in (1, 2))
    pixels = images(channels)
    found = Classifier(members, photographs=False).probabilities(
        [as_png(image) for image in pixels]
    )
    mean = np.mean([wanted(member, pixels) for member in members], axis=0)
    assert np.abs(found - mean).max() < 1e-6
    one = [
        Classifier(members, photographs=False).probabilities([as_png(image)])[0] for image in pixels
    ]
    assert np.abs(np.array(one) - mean).max() < 1e-6  # in whatever batches they come


def test_other_sizes_and_colours_are_fitted_as_folders_of_images_are():
    classifier = Classifier((network(1, 3),), photographs=False)
    tall = Image.fromarray(images(3, 1, 32)[0]).resize((20, 40))
    fitted = tall.resize((8, 8), Image.Resampling.BILINEAR, box=(0, 10, 20, 30))
    out = io.BytesIO()
    tall.convert("RGBA").save(out, "PNG")
    both = classifier.probabilities([out.getvalue(), as_png(np.asarray(fitted))])
    assert np.abs(both[0] - both[1]).max() < 1e-6


def test_photographs_are_classified_as_by_evaluation(tmp_path: Path):
    data = prepared(tmp_path, 12, 6)
    row = ImageNetNetwork(family="imagenet", block="basic", depth=18, shortcut="B")
    model = build(row, 3, 2, seed=1)
    with torch.no_grad():
        for crops in shown.inputs(data.train, data.mean, 64, CPU):
            model(crops)
    facts = model_facts(row, classes=("a", "b"), image_size_px=(64, 64))
    trained = Trained(model.eval(), data.mean, facts)
    wanted = views.logits(
        trained, "single", data.test, 64, None, "float32", CPU, lambda count: None
    )
    files = [data.test.images.content(place) for place in range(len(data.test))]
    found = Classifier((trained,), photographs=True).probabilities(files)
    assert np.abs(found - softmax(wanted)).max() < 1e-6
    other = Trained(trained.model, data.mean, replace(facts, image_size_px=(48, 48)))
    smaller = views.logits(other, "single", data.test, 48, None, "float32", CPU, lambda count: None)
    both = Classifier((trained, other), photographs=True).probabilities(files)
    assert np.abs(both - (softmax(wanted) + softmax(smaller)) / 2).max() < 1e-6


@pytest.mark.parametrize("photographs", [False, True])
def test_what_is_no_image_is_named(photographs: bool):
    with pytest.raises(DataError, match="image 1: it does not decode"):
        classifier = Classifier((network(1, 3),), photographs)
        classifier.probabilities([as_png(images(3)[0]), b"text"])


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow gives EPS, by whatever name, to Ghostscript."""
    (program := tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
    with pytest.raises(DataError, match="image 0: it does not decode"):
        Classifier((network(1, 3),), photographs=False).probabilities([eps])
    assert not (tmp_path / "ran").exists()


def test_an_image_that_would_fill_the_memory_is_refused_whatever_the_warnings():
    out = io.BytesIO()
    Image.new("1", (11_000, 10_001)).save(out, "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="11000 x 10001 pixels, wanted at most 100,000,000"):
            Classifier((network(1, 1),), photographs=False).probabilities([out.getvalue()])


def test_gray_of_sixteen_bits_is_scaled():
    deep = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    out = io.BytesIO()
    Image.fromarray(deep).save(out, "PNG")
    flat = as_png((deep / 257 + 0.5).astype(np.uint8))
    both = Classifier((network(1, 1),), photographs=False).probabilities([out.getvalue(), flat])
    assert np.abs(both[0] - both[1]).max() < 1e-6


@pytest.mark.parametrize("shape", [(8,), (8, 8, 2), (1, 8, 8, 3)])
def test_pixels_of_a_wrong_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(DataError, match="wanted \\(height, width"):
        as_png(np.zeros(shape, np.uint8))


LOAD = """
import json, sys
import mlflow.pyfunc, numpy, pandas
import pipeline
theirs = pipeline
model = mlflow.pyfunc.load_model(sys.argv[1])
pixels = numpy.load(sys.argv[2])
for wrong in ([[[0], [300]]], [[[-1]]], numpy.full((8, 8, 1), 256), [[[0], [1]], [[0]]]):
    try:
        model.predict(pandas.DataFrame({"pixels": [pixels[0].tolist(), wrong]}))
    except Exception as error:
        assert "line 1: pixels: " in str(error), error
    else:
        raise AssertionError(wrong)
try:
    model.predict(pandas.DataFrame({"image": [b"text" if number == 150 else IMAGE for number in range(160)]}))
except Exception as error:
    assert "image 150: it does not decode" in str(error), error
assert sys.modules["pipeline"] is theirs and theirs.WHAT == "a client's own module"
found = model.predict(pandas.DataFrame({"pixels": [image.tolist() for image in pixels]}))
try:
    mlflow.pyfunc.load_model(sys.argv[3])
except Exception as error:
    print(error)
print(json.dumps([found["class"].tolist(), [list(one.values()) for one in found["probabilities"]]]))
"""


@pytest.mark.slow
def test_an_mlflow_model_needs_none_of_our_files_and_has_no_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    members, pixels = [network(seed, 1) for seed in (1, 2)], images(1)
    model, runs = tmp_path / "model", [tmp_path / "runs" / name for name in ("first", "second")]
    for number, member in enumerate(members):
        arrays = {name: value.numpy() for name, value in member.model.state_dict().items()}
        weights.save(runs[number], arrays, member.mean.numpy(), member.facts)
    monkeypatch.chdir(tmp_path)
    study = params.load(
        REPO / "studies/cifar10-modern.yaml"
    )  # trains on crops, evaluates whole images
    assert {row.crop_px for row in study.models.values()} == {32}
    results.save(model, study, ["first", "second"])
    for path in model.rglob("*"):
        assert path.suffix in ("", ".yaml", ".txt", ".py", ".zip", ".safetensors", ".json")
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                assert file.keys()
    assert str(tmp_path) not in (model / "MLmodel").read_text()
    np.save(tmp_path / "pixels.npy", pixels)
    shutil.copytree(model, tmp_path / "damaged")
    damaged = tmp_path / "damaged/artifacts/networks/first" / paths.WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (tmp_path / "pipeline.py").write_text('WHAT = "a client\'s own module"\n')
    given = (str(model), str(tmp_path / "pixels.npy"), str(tmp_path / "damaged"))
    command = [sys.executable, "-c", f"IMAGE = {as_png(pixels[0])!r}\n{LOAD}", *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sha256" in done.stdout  # what the damaged one said
    names, found = json.loads(done.stdout.splitlines()[-1])
    mean = np.mean([wanted(member, pixels) for member in members], axis=0)
    assert np.abs(np.array(found) - mean).max() < 1e-6
    assert names == [CLASSES[line.argmax()] for line in mean]
