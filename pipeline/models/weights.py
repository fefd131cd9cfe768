"""A trained network as two files: model.safetensors, and model.json that says how to build it."""

import hashlib
import json
from dataclasses import dataclass
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

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = dict[str, NDArray[np.generic]]

WEIGHTS, FACTS = "model.safetensors", "model.json"
MEAN = "input.mean"


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, its input's `mean` float32 (H, W, C), and model.json."""

    model: "nn.Module"
    mean: "Tensor"
    facts: dict[str, Any]


def content_of(weights: Weights, mean: NDArray[np.float32]) -> bytes:
    """Returns model.safetensors."""
    # as they lie in memory would be wrong where channels are last
    arrays = {name: np.asarray(value, order="C") for name, value in weights.items()}
    content: bytes = save_tensors({**arrays, MEAN: mean})
    return content


def save(folder: Path, weights: Weights, mean: NDArray[np.float32], facts: dict[str, Any]) -> None:
    """Writes both files; `facts` must have `network`, `channels` and `classes`.

    model.json is written last and holds the sha256 of the weights. Torch is not needed.
    """
    content = content_of(weights, mean)
    write(folder / WEIGHTS, content)
    write_json(folder / FACTS, {**facts, "sha256": hashlib.sha256(content).hexdigest()})


def load(folder: Path) -> Trained:
    """Returns the network in `folder`; raises CheckpointError where it is damaged or missing."""
    import torch  # here, so that who only saves or looks need not wait for it
    from safetensors.torch import load as load_tensors

    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        content = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{error.filename}: not found: `dvc repro train@{folder.name}` trains it and "
            f"`dvc pull train@{folder.name}` brings it"
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != facts["sha256"]:
        raise CheckpointError(
            f"{folder / WEIGHTS}: sha256 {found}, expected {facts['sha256']} ({FACTS}): "
            f"`dvc checkout train@{folder.name}` brings the right file back"
        )
    network: Network = validate(Network, facts["network"], str(folder / FACTS))
    model = build(network, facts["channels"], len(facts["classes"]))
    model = model.to(memory_format=torch.channels_last)
    try:
        tensors = load_tensors(content)
        mean = tensors.pop(MEAN)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder}: the weights do not fit model.json: {error}") from error
    return Trained(model.eval(), mean, facts)
