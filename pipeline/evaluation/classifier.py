"""Trained networks as a classifier of image files: what it says of an image is what evaluation says of it.

A folder holds the networks, each as in `runs/<row>/`, and `members.json`: their names in order, and whether
they were trained on photographs of any size, of which each sees its own center crop (section 3.4).
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.data.feeding.decoding import cut, opened
from pipeline.data.feeding.pixels import to_rgb
from pipeline.data.feeding.shown import less_mean, resized_px
from pipeline.errors import DataError
from pipeline.evaluation.outcomes import Array, softmax
from pipeline.models import weights
from pipeline.models.predict import device, predict
from pipeline.models.weights import Trained
from pipeline.params import Precision, validate
from pipeline.paths import FACTS, MEMBERS


@dataclass(frozen=True)
class Classifier:
    """One network or an ensemble; all have the same classes and channels.

    Without `photographs` they were trained on images of one size, which are shown whole.
    """

    members: tuple[Trained, ...]
    photographs: bool

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Returns the classifier in a folder; raises CheckpointError if a network is damaged or missing."""
        said = json.loads((folder / MEMBERS).read_text(encoding="utf-8"))
        members = tuple(weights.load(folder / name) for name in said["members"])
        return cls(members, said["photographs"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return tuple(self.members[0].facts.classes)

    def probabilities(self, files: Sequence[bytes], first: int = 0) -> Array:
        """Returns probabilities float64 (N, classes) of image files, averaged over the members.

        Raises DataError for one that does not decode, with its number, counted from `first`.
        """
        shown = dict[tuple[int, int], Tensor]()  # members that see the same share it
        for size in {member.facts.image_size_px for member in self.members}:
            images = [
                self._pixels(content, size, number) for number, content in enumerate(files, first)
            ]
            shown[size] = torch.from_numpy(np.stack(images)).to(device())
        each = [self._of(member, shown[member.facts.image_size_px]) for member in self.members]
        found: Array = np.mean(each, axis=0)
        return found

    def _of(self, member: Trained, images: Tensor) -> Array:
        precision: Precision = validate(Precision, member.facts.precision, FACTS)
        model, mean = member.model.to(images.device), member.mean.to(images.device)
        if self.photographs:
            inputs = less_mean(images, member.mean)
        else:
            inputs = (images - mean).permute(0, 3, 1, 2)
        return softmax(torch.cat(list(predict(model, [inputs], precision))).cpu().numpy())

    def _pixels(self, content: bytes, size: tuple[int, int], number: int) -> NDArray[np.uint8]:
        """Returns what a network of that input (height, width) sees of a file, uint8 (*size, channels)."""
        channels = self.members[0].facts.channels
        try:
            if self.photographs:
                return _center(content, size[0])
            with opened(content) as image:
                pixels = to_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
            raise DataError(
                f"image {number}: it does not decode ({error}): wanted the bytes of a PNG, JPEG or other "
                "image file"
            ) from error
        if channels == 1:
            pixels = pixels.convert("L")
        if pixels.size != size[::-1]:
            pixels = ImageOps.fit(pixels, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(pixels).reshape(*size, channels)


def _center(content: bytes, crop_px: int) -> NDArray[np.uint8]:
    """Returns a photograph's center crop, uint8 (crop_px, crop_px, 3)."""
    with opened(content) as image:
        width, height = image.size
    side = min(width, height) * crop_px / resized_px(crop_px)
    box = ((height - side) / 2, (width - side) / 2, side, side)
    return cut(content, box, (crop_px, crop_px), mirror=False)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Returns an image (height, width[, 1 or 3 channels]) as a PNG file, which loses nothing."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise DataError(
            f"pixels of shape {pixels.shape}: wanted (height, width[, 1 or 3 channels])"
        )
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
