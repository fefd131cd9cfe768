"""The whole evaluation of a trained network on one machine: predictions, responses, costs."""

from dataclasses import asdict

import torch

from pipeline.data.dataset import Dataset
from pipeline.data.feeding import shown
from pipeline.data.feeding.shards import Photos
from pipeline.evaluation.parts import all_parts
from pipeline.evaluation.responses import responses
from pipeline.evaluation.tables import Evaluation
from pipeline.models.complexity import complexity
from pipeline.models.weights import Trained
from pipeline.params import Row


def evaluate(
    name: str,
    row: Row,
    sides_px: tuple[int, ...] | None,
    data: Dataset,
    trained: Trained,
    device: torch.device,
) -> Evaluation:
    """Evaluates a row's network; figure 7 speaks of small images, so photographs have no responses."""
    tables = all_parts(name, row, sides_px, data, trained, device)
    is_small = not isinstance(data.val.images, Photos)
    inputs = shown.inputs(data.val, trained.mean, None, device) if is_small else ()
    return Evaluation(tables, responses(trained.model, inputs), costs(trained))


def costs(trained: Trained) -> dict[str, int]:
    """Returns what a network costs for one image of the size that it was trained on."""
    shape = (trained.facts.channels, *trained.facts.image_size_px)
    return asdict(complexity(trained.model, shape))
