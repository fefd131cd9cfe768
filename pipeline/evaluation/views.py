"""Section 3.4's three tests of a network on photographs, and the one on small images.

- `single`: the center crop of an image whose shorter side is 256 for crops of 224.
- `ten_crops`: the four corners, the center and their mirror images; probabilities are averaged.
- `scales`: fully convolutional on the whole image at several shorter sides; at each, the classifier
  is applied at every position of the feature map that a training crop could take, logits are averaged
  over positions and probabilities over sides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pipeline.data.dataset import Split
from pipeline.data.feeding import shown
from pipeline.evaluation.tables import SINGLE, TEN_CROPS
from pipeline.models.predict import autocast, predict
from pipeline.models.resnet import ResNet
from pipeline.models.weights import Trained
from pipeline.params import Precision

LEAST = float(np.finfo(np.float32).tiny)  # the lowest probability of which a logarithm is taken


def logits(
    trained: Trained,
    view: str,
    split: Split,
    crop_px: int | None,
    sides_px: Sequence[int] | None,
    precision: Precision,
    device: torch.device,
    advance: Callable[[int], object],
) -> NDArray[np.float32]:
    """Returns a network's logits float32 (N, classes) in a view, in the split's order.

    Where probabilities are averaged, their logarithms serve as logits. `advance` is called with each
    number of images done; in `scales`, an image counts once for each side.
    """
    show = _Shown(trained, split, crop_px, precision, device, advance)
    if view == SINGLE:
        return show.single()
    assert crop_px is not None and sides_px is not None  # ensured by pipeline.params
    return show.ten_crops(crop_px) if view == TEN_CROPS else show.scales(crop_px, sides_px)


@dataclass(frozen=True)
class _Shown:
    """A network and the images that it is shown."""

    trained: Trained
    split: Split
    crop_px: int | None
    precision: Precision
    device: torch.device
    advance: Callable[[int], object]

    def single(self) -> NDArray[np.float32]:
        inputs = shown.inputs(self.split, self.trained.mean, self.crop_px, self.device)
        parts = []
        for batch in predict(self.trained.model, inputs, self.precision):
            parts.append(batch.cpu())
            self.advance(len(batch))
        result: NDArray[np.float32] = torch.cat(parts).numpy()
        return result

    @torch.inference_mode()
    def ten_crops(self, crop_px: int) -> NDArray[np.float32]:
        def probabilities(images: Tensor) -> Tensor:
            crops = torch.cat(shown.ten_crops(images, crop_px))
            parts = (self._less_mean(part) for part in torch.split(crops, len(images) * 2))
            found = torch.cat(list(predict(self.trained.model, parts, self.precision)))
            return found.softmax(dim=1).view(10, len(images), -1).mean(dim=0)

        return _logarithms(self._gathered(shown.resized_px(crop_px), probabilities))

    @torch.inference_mode()
    def scales(self, crop_px: int, sides_px: Sequence[int]) -> NDArray[np.float32]:
        def probabilities(images: Tensor) -> Tensor:
            return dense(self.trained.model, self._less_mean(images), crop_px, self.precision)

        total = sum(self._gathered(side, probabilities) for side in sides_px)
        assert isinstance(total, Tensor)
        return _logarithms(total / len(sides_px))

    def _less_mean(self, images: Tensor) -> Tensor:
        return shown.less_mean(images, self.trained.mean)

    def _gathered(self, side_px: int, probabilities: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns probabilities (N, classes) of whole images, resized, in the split's order."""
        result = torch.empty(len(self.split), len(self.trained.facts.classes))
        for places, images in shown.whole(self.split, side_px, self.device):
            result[places] = probabilities(images).cpu()
            self.advance(len(places))
        return result


def dense(model: nn.Module, images: Tensor, crop_px: int, precision: Precision) -> Tensor:
    """Returns probabilities float32 (n, classes) of whole images (n, C, H, W), fully convolutional.

    The average pooling of training becomes one that slides over the feature map, the classifier a 1x1
    convolution; the scores are averaged over all positions. Both are linear, so the classifier may be
    applied last. A network that is not the paper's turns a larger image into one score in its own way.
    """
    if not isinstance(model, ResNet):
        with autocast(precision, images.device):
            logits: Tensor = model(images)
        return logits.float().softmax(dim=1)
    with autocast(precision, images.device):
        *_, features = model.features(images).values()
        features = features.float()
    kernel = -(-crop_px // model.stride)
    window = [min(kernel, side) for side in features.shape[2:]]
    pooled = avg_pool2d(features, window, stride=1).mean(dim=(2, 3))
    return model.classified(pooled).softmax(dim=1)


def _logarithms(probabilities: Tensor) -> NDArray[np.float32]:
    result: NDArray[np.float32] = probabilities.clamp_min(LEAST).log().numpy()
    return result
