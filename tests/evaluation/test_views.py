"""Crops and scales equal a slow, plain implementation: one image at a time, written from section 3.4."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from pipeline.data.dataset import Dataset
from pipeline.data.feeding import shown
from pipeline.evaluation import views
from pipeline.evaluation.outcomes import outcomes, outcomes_in
from pipeline.evaluation.parts import assembled, evaluated, parts_of
from pipeline.evaluation.tables import VIEWS
from pipeline.models.networks import build
from pipeline.models.resnet import ResNet
from pipeline.models.weights import Trained
from pipeline.params import CifarNetwork, ImageNetNetwork
from tests.checkpoints import model_facts
from tests.photographs import prepared

CPU = torch.device("cpu")
CROP = 64  # from images of 73
SIDES = (64, 73, 110)
NETWORK = ImageNetNetwork(family="imagenet", block="basic", depth=18, shortcut="B")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("photos"), 12, 6)


@pytest.fixture(scope="module")
def model(data: Dataset) -> ResNet:
    """A network whose batch norms have statistics and whose classes differ."""
    model = build(NETWORK, 3, 2, seed=1)
    model.train()
    with torch.no_grad():
        model.fc.weight.mul_(0.2)
        for images in shown.inputs(data.train, data.mean, CROP, CPU):
            model(images)
    return model.eval()


def photographs(data: Dataset) -> Iterator[Image.Image]:
    for place in range(len(data.test)):
        yield Image.open(io.BytesIO(data.test.images.content(place))).convert("RGB")


def resized(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width <= height:
        return image.resize((side, side * height // width), Image.Resampling.BILINEAR)
    return image.resize((side * width // height, side), Image.Resampling.BILINEAR)


def network_input(pixels: np.ndarray, mean: Tensor) -> Tensor:
    """Returns (1, 3, H, W): the mean image, resized, is subtracted."""
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    means = interpolate(
        mean.permute(2, 0, 1)[None], size=image.shape[2:], mode="bilinear", antialias=True
    )
    return image - means


def logits_of(model: ResNet, data: Dataset, view: str) -> np.ndarray:
    trained = Trained(model, data.mean, model_facts(NETWORK, classes=("a", "b")))
    return views.logits(trained, view, data.test, CROP, SIDES, "float32", CPU, lambda images: None)


@pytest.fixture(scope="module")
def found_of(data: Dataset, model: ResNet) -> dict[str, np.ndarray]:
    """The logits of each view, computed once."""
    return {view: logits_of(model, data, view) for view in ("single", "ten_crops", "scales")}


def test_the_single_view_is_the_middle_crop(data: Dataset, model: ResNet, found_of: dict):
    found = found_of["single"]
    for line, image in enumerate(photographs(data)):
        side = min(image.size) * 64 / 73
        left, top = (image.width - side) / 2, (image.height - side) / 2
        crop = image.resize((64, 64), 2, box=(left, top, left + side, top + side))
        with torch.no_grad():
            logits = model(network_input(np.asarray(crop), data.mean))[0]
        assert found[line] == pytest.approx(logits.numpy(), abs=1e-4)


def test_ten_crops_equal_the_plain_implementation(data: Dataset, model: ResNet, found_of: dict):
    found = found_of["ten_crops"]
    for line, image in enumerate(photographs(data)):
        whole = np.asarray(resized(image, 73))
        height, width, _ = whole.shape
        corners = [(0, 0), (0, width - 64), (height - 64, 0), (height - 64, width - 64),
                   ((height - 64) // 2, (width - 64) // 2)]  # fmt: skip
        scores = []
        for top, left in corners:
            crop = whole[top : top + 64, left : left + 64]
            for pixels in (crop, crop[:, ::-1].copy()):
                with torch.no_grad():
                    scores.append(model(network_input(pixels, data.mean)).softmax(1)[0])
        mean = torch.stack(scores).mean(0).numpy()
        assert np.abs(np.exp(found[line]) - mean).max() < 1e-5


def test_scales_equal_a_network_that_is_made_fully_convolutional(
    data: Dataset, model: ResNet, found_of: dict
):
    found = found_of["scales"]
    kernel = model.fc.weight[:, :, None, None].expand(-1, -1, 2, 2) / 4  # pooling of 2x2, then fc
    for line, image in enumerate(photographs(data)):
        scores = []
        for side in SIDES:
            pixels = network_input(np.asarray(resized(image, side)), data.mean)
            with torch.no_grad():
                features = model.features(pixels)["C5"]
                score_map = conv2d(features, kernel, model.fc.bias)
                scores.append(score_map.mean(dim=(2, 3)).softmax(1)[0])
        mean = torch.stack(scores).mean(0).numpy()
        assert np.abs(np.exp(found[line]) - mean).max() < 1e-5


def test_at_the_size_of_training_crops_both_forms_are_one(data: Dataset, model: ResNet):
    images = torch.randn(3, 3, CROP, CROP)
    with torch.no_grad():
        plain = model(images).softmax(1)
        torch.testing.assert_close(views.dense(model, images, CROP, "float32"), plain)


def test_the_views_differ(found_of: dict):
    single, ten = found_of["single"], found_of["ten_crops"]
    assert np.abs(torch.from_numpy(single).softmax(1).numpy() - np.exp(ten)).max() > 1e-3


def test_crops_of_224_come_from_256_as_in_the_paper():
    assert shown.resized_px(224) == 256


def test_ten_crops_are_five_places_and_their_mirror_images():
    whole = torch.arange(73 * 90).view(1, 73, 90, 1)
    crops = shown.ten_crops(whole, 64)
    assert [int(crop[0, 0, 0, 0]) for crop in crops[:5]] == [
        0,
        26,
        9 * 90,
        9 * 90 + 26,
        4 * 90 + 13,
    ]
    assert all(torch.equal(crops[n + 5], crops[n].flip(2)) for n in range(5))


@pytest.mark.slow
def test_parts_together_are_the_whole(data: Dataset, model: ResNet, found_of: dict):
    trained = Trained(model, data.mean, model_facts(NETWORK, classes=("a", "b")))
    tables = {
        part: evaluated(trained, data, part, CROP, SIDES, "float32", CPU)
        for part in parts_of(data, SIDES)
    }
    assert len(tables) > 5  # a shard each
    found = assembled(tables)
    for view in VIEWS:
        assert found["test", view]["logits"] == pytest.approx(found_of[view], abs=1e-4)
    with torch.no_grad():
        logits = torch.cat(
            [model(images) for images in shown.inputs(data.train, data.mean, CROP, CPU)]
        )
    wanted = outcomes(logits.double().softmax(1).numpy(), data.train.labels.numpy())
    said = outcomes_in(found["train", "single"], data.train.labels.numpy())
    assert np.array_equal(said.rank, wanted.rank)
    assert said.log_likelihood == pytest.approx(wanted.log_likelihood, abs=1e-4)
    assert np.array_equal(said.labels, data.train.labels.numpy())


def test_a_network_of_the_cifar_family_is_made_fully_convolutional_too():
    network = CifarNetwork(family="cifar", block="basic", depth=8, shortcut="A")
    model = build(network, 3, 2, seed=1).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            views.dense(model, images, 32, "float32"), model(images).softmax(1)
        )
