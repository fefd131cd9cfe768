"""The kinds of augmentation. A run's key depends on the file of the kind it uses, not on this list."""

from typing import assert_never

import torch

from pipeline.data.dataset import Dataset
from pipeline.data.feeding.augment import Augmenter
from pipeline.data.feeding.pad_crop import PadCropper
from pipeline.data.feeding.random_resized_crop import AreaCropper
from pipeline.data.feeding.scale_crop import ScaleCropper
from pipeline.params import Augmentation, PadCrop, RandomResizedCrop, ScaleCrop


def augmenter_of(recipe: Augmentation, data: Dataset, device: torch.device) -> Augmenter:
    """Returns the augmenter of a recipe, with the data set's mean and colors, on `device`."""
    mean = data.mean.to(device)
    match recipe:
        case PadCrop():
            return PadCropper(recipe, mean)
        case ScaleCrop():
            return ScaleCropper(recipe, mean, data.colour)
        case RandomResizedCrop():
            return AreaCropper(recipe, mean, data.colour)
    assert_never(recipe)
