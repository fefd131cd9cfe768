"""How far a gradient in bfloat16 or TF32 points away from the float32 one, by depth (docs/adr/0013).

Measured as the cosine between the two gradients of all weights, on real images: at a network's initial
weights, and after some updates in float32. TF32 exists only on GPUs: here the operands of convolutions
are rounded to ten bits of mantissa, forward and backward, as a GPU does.

    python -m benchmarks.precision [depths]
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional, grad

from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.models.networks import build
from pipeline.models.predict import autocast
from pipeline.params import CifarNetwork

CPU = torch.device("cpu")
BATCH, SIDE_PX, SEEDS = 32, 32, (1, 2)
UPDATES = 30  # before the second measurement; the deepest network has only the first
DEEPEST_TRAINED = 110


def rounded(value: Tensor) -> Tensor:
    """Returns float32 values rounded to the ten bits of mantissa that TF32 has."""
    bits = value.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        images, weight = rounded(images), rounded(weight)
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = rounded(gradient)
        return (
            grad.conv2d_input(
                images.shape, weight, gradient, ctx.stride, ctx.padding
            ),
            grad.conv2d_weight(
                images, weight.shape, gradient, ctx.stride, ctx.padding
            ),
            None,
            None,
        )  # fmt: skip


@contextmanager
def tf32() -> Any:
    """Makes convolutions multiply as a GPU does in TF32."""
    convolution: Any = torch.nn.Conv2d
    before = convolution.forward

    def forward(self: torch.nn.Conv2d, images: Tensor) -> Tensor:
        result: Tensor = _Convolved.apply(images, self.weight, self.stride, self.padding)
        return result

    convolution.forward = forward
    try:
        yield
    finally:
        convolution.forward = before


def gradient(
    model: nn.Module, images: Tensor, labels: Tensor, context: AbstractContextManager[object]
) -> Tensor:
    """Returns the gradient of all weights, float64 (weights,)."""
    model.zero_grad(set_to_none=True)
    model.train()
    with context:
        logits = model(images)
        functional.cross_entropy(logits, labels).backward()
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([some.reshape(-1) for some in found]).double()


def batch_of(data: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Returns images of the prepared set, resized to CIFAR's size, less their mean, and their labels."""
    places = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:BATCH]
    assert isinstance(data.train.images, Tensor)
    images = (data.train.images[places] - data.mean).permute(0, 3, 1, 2)
    return functional.interpolate(images, (SIDE_PX, SIDE_PX)), data.train.labels[places]


def cosines(depth: int, seed: int, data: Dataset, updates: int) -> dict[str, float]:
    """Returns the cosine of each arithmetic's gradient to that of float32, after updates in float32."""
    row = CifarNetwork(family="cifar", block="basic", depth=depth, shortcut="A")
    model = build(row, data.channels, len(data.classes), seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    for update in range(updates):
        images, labels = batch_of(data, 1000 * seed + update)
        gradient(model, images, labels, autocast("float32", CPU))
        optimizer.step()
    images, labels = batch_of(data, seed)
    wanted = gradient(model, images, labels, autocast("float32", CPU))
    contexts: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "tf32": tf32,
        "bfloat16": lambda: autocast("bfloat16", CPU),
    }
    return {
        name: float(
            functional.cosine_similarity(gradient(model, images, labels, context()), wanted, dim=0)
        )
        for name, context in contexts.items()
    }


def main() -> None:
    """Prints the table."""
    depths = [int(word) for word in sys.argv[1:]] or [20, 56, 110, 1202]
    data = dataset.load(Path("data/arrays.safetensors"))
    for depth in depths:
        for updates in (0, UPDATES) if depth <= DEEPEST_TRAINED else (0,):
            found = [cosines(depth, seed, data, updates) for seed in SEEDS]
            text = ", ".join(
                f"{name} {' '.join(f'{one[name]:.3f}' for one in found)}" for name in found[0]
            )
            print(f"{depth:5} layers after {updates:2} updates: {text}", flush=True)


if __name__ == "__main__":
    main()
