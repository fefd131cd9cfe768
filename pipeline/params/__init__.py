"""Typed mirror of params.yaml, and its only reader: a file for each section.

The document is closed and complete: an unknown key is an error and nothing has a default, so what
a study does is written in one file. Every stage validates the whole document when it loads it.
"""

from pipeline.params.augmentation import (
    Augmentation,
    Cutout,
    Erasing,
    Extra,
    PadCrop,
    RandomResizedCrop,
    ScaleCrop,
)
from pipeline.params.claims import Better, Equal, OwnClaim
from pipeline.params.data import (
    CIFAR10_SHA256,
    Cifar10Data,
    Data,
    DigitsData,
    ImageFolderData,
    ImageNetData,
    PhotosData,
    Sharded,
    Small,
)
from pipeline.params.network import (
    IMAGENET_DEPTHS,
    CifarNetwork,
    ImageNetNetwork,
    Network,
    TorchvisionNetwork,
)
from pipeline.params.reading import (
    PARAMS,
    also_in,
    canonical_sha256,
    digest,
    load,
    read_yaml,
    row_of,
    together,
    validate,
)
from pipeline.params.row import Optimizer, Row
from pipeline.params.section import (
    TUNED,
    Elastic,
    Fraction,
    Percent,
    Precision,
    Range,
    RowName,
    ScheduleFile,
    Section,
    Sha256,
    Shortcut,
    Span,
)
from pipeline.params.study import Ensemble, Evaluation, Execution, Study
from pipeline.params.tuning import SearchSpace, Tune

__all__ = [
    "CIFAR10_SHA256",
    "IMAGENET_DEPTHS",
    "PARAMS",
    "TUNED",
    "Augmentation",
    "Better",
    "Cifar10Data",
    "CifarNetwork",
    "Cutout",
    "Data",
    "DigitsData",
    "Elastic",
    "Ensemble",
    "Equal",
    "Erasing",
    "Evaluation",
    "Execution",
    "Extra",
    "Fraction",
    "ImageFolderData",
    "ImageNetData",
    "ImageNetNetwork",
    "Network",
    "Optimizer",
    "OwnClaim",
    "PadCrop",
    "Percent",
    "PhotosData",
    "Precision",
    "RandomResizedCrop",
    "Range",
    "Row",
    "RowName",
    "ScaleCrop",
    "ScheduleFile",
    "SearchSpace",
    "Section",
    "Sha256",
    "Sharded",
    "Shortcut",
    "Small",
    "Span",
    "Study",
    "TorchvisionNetwork",
    "Tune",
    "also_in",
    "canonical_sha256",
    "digest",
    "load",
    "read_yaml",
    "row_of",
    "together",
    "validate",
]
