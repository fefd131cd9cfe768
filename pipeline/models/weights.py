"""A trained network as two files: model.safetensors, and model.json, which says how to build it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save as save_tensors

from pipeline.errors import CheckpointError
from pipeline.files import write, write_json
from pipeline.models.networks import build
from pipeline.params import Network, validate
from pipeline.paths import FACTS, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = dict[str, NDArray[np.generic]]

MEAN = "input.mean"


@dataclass(frozen=True)
class ModelFacts:
    """The content of model.json: how to build the network, how it was trained, and how fast.

    `image_size_px` is (height, width) of an input; `source` is the digest of the code that trained;
    `train_seconds` is the time in the training loop, validation included, and `wall_seconds` the whole
    time, both over all attempts.
    """

    name: str
    arch: str
    network: dict[str, Any]
    channels: int
    image_size_px: tuple[int, int]
    classes: Sequence[str]
    precision: str
    seed: int
    run_key: str
    run_key_overridden: bool
    instance: int
    commit: str
    data_digest: str
    updates: int
    history_digest: str
    threads: int
    workers: int
    torch: str
    hardware: str
    source: str | None
    wall_seconds: float
    train_seconds: float
    train_images_per_s: float
    sha256: str = ""
    """Of the weights."""


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, its input's `mean` float32 (H, W, C), and the facts about it."""

    model: "nn.Module"
    mean: "Tensor"
    facts: ModelFacts


def content_of(weights: Weights, mean: NDArray[np.float32]) -> bytes:
    """Returns the bytes of model.safetensors."""
    # C order: the memory order of channels-last weights would be wrong
    arrays = {name: np.asarray(value, order="C") for name, value in weights.items()}
    content: bytes = save_tensors({**arrays, MEAN: mean})
    return content


def save(folder: Path, weights: Weights, mean: NDArray[np.float32], facts: ModelFacts) -> None:
    """Writes both files, model.json last, with the sha256 of the weights; does not need torch."""
    content = content_of(weights, mean)
    write(folder / WEIGHTS, content)
    write_json(folder / FACTS, asdict(replace(facts, sha256=hashlib.sha256(content).hexdigest())))


def look(folder: Path) -> ModelFacts:
    """Returns the facts in `folder`'s model.json; raises CheckpointError if it is damaged or missing."""
    try:
        said = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return ModelFacts(**{**said, "image_size_px": tuple(said["image_size_px"])})
    except FileNotFoundError as error:
        raise _missing(error, folder) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / FACTS}: not in this code's format: {error}: `dvc repro train@{folder.name}` "
            "brings it up to date"
        ) from error


def _missing(error: FileNotFoundError, folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{error.filename}: not found: `dvc repro train@{folder.name}` trains it and "
        f"`dvc pull train@{folder.name}` fetches it"
    )


def read(folder: Path) -> tuple[ModelFacts, bytes]:
    """Returns `folder`'s facts and the bytes of its weights; raises CheckpointError as `load` does."""
    facts = look(folder)
    try:
        content = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise _missing(error, folder) from error
    if (found := hashlib.sha256(content).hexdigest()) != facts.sha256:
        raise CheckpointError(
            f"{folder / WEIGHTS}: sha256 {found}, expected {facts.sha256} ({FACTS}): "
            f"`dvc checkout train@{folder.name}` restores the right file"
        )
    return facts, content


def load(folder: Path) -> Trained:
    """Returns the network in `folder`; raises CheckpointError if it is damaged or missing."""
    import torch  # here, so that saving and looking need not wait for it
    from safetensors.torch import load as load_tensors

    facts, content = read(folder)
    network: Network = validate(Network, facts.network, str(folder / FACTS))
    model = build(network, facts.channels, len(facts.classes))
    model = model.to(memory_format=torch.channels_last)
    try:
        tensors = load_tensors(content)
        mean = tensors.pop(MEAN)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder}: the weights do not fit model.json: {error}") from error
    return Trained(model.eval(), mean, facts)
