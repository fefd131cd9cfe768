"""Images a second of our training loop, against the conventional loop and the bare step.

`make bench` prints ratios and writes benchmarks/bench.json. The three take turns in one run, on the
same images and the same network, and each figure is a median over turns, so that a busy machine
slows all of them alike. Data: scikit-learn's digits as 32x32 RGB; speed does not depend on content.

- conventional: DataLoader with PIL transforms in two worker processes, float32, NCHW, one
  `.item()` a step.
- bare step: the network's forward, backward and optimizer step on one fixed batch, in our
  precision and layout, without data, augmentation, errors or history.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pipeline.data import digits
from pipeline.data.arrays import Split
from pipeline.data.augment import Augmenter
from pipeline.data.batches import Batches
from pipeline.models.archs import arch_of
from pipeline.models.predict import autocast
from pipeline.models.resnet import build
from pipeline.params import Augmentation, Network
from pipeline.training.hardware import hardware
from pipeline.training.loop import train
from pipeline.training.schedule import CosineSchedule
from pipeline.training.state import TrainingState

BATCH = 128
TURNS = 5
UPDATES = {20: 24, 56: 10}
WARM_UP = 3
CPU = torch.device("cpu")
OUT = Path("benchmarks/bench.json")


def images() -> Split:
    """Returns the digits as uint8 (N, 32, 32, 3)."""
    with as_file(files("sklearn.datasets.data") / "digits.csv.gz") as archive:
        read = digits.read(archive, 32).train
    pixels = torch.from_numpy(read.images).expand(-1, -1, -1, 3).contiguous()
    return Split(pixels, torch.from_numpy(read.labels), torch.arange(len(pixels)))


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """The images as a torchvision data set, one PIL image at a time."""

    def __init__(self, split: Split) -> None:
        self.images, self.labels = split.images.numpy(), split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def network(depth: int) -> torch.nn.Module:
    """Returns the residual network of the CIFAR family."""
    return build(arch_of(Network(family="cifar", depth=depth, shortcut="A")), 3, 10, seed=1)


def sgd(model: torch.nn.Module, *, fused: bool) -> torch.optim.SGD:
    """Returns the paper's optimizer."""
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=fused)


def conventional(depth: int, split: Split) -> Callable[[int], float]:
    """Returns a function that trains so many updates and returns images a second."""
    model = network(depth).to(memory_format=torch.contiguous_format)
    optimizer = sgd(model, fused=False)
    loader = DataLoader(Pictures(split), BATCH, shuffle=True, num_workers=2, drop_last=True,
                        persistent_workers=True)  # fmt: skip

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    source = batches()

    def measure(updates: int) -> float:
        started = time.perf_counter()
        for _ in range(updates):
            pixels, labels = next(source)
            loss = cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return updates * BATCH / (time.perf_counter() - started)

    return measure


def ours(depth: int, split: Split) -> Callable[[int], float]:
    """Returns the same for `pipeline.training.loop.train`."""
    model = network(depth)
    state = TrainingState(model, sgd(model, fused=True))
    mean = split.images.float().mean(0)
    augmenter = Augmenter(Augmentation(pad_px=4, mirror=True), mean)
    batches = Batches(split, augmenter, global_batch_size=BATCH, seed=1)

    def measure(updates: int) -> float:
        total = state.update + updates
        train(
            state, model, batches,
            CosineSchedule(shape="cosine", base_lr=0.1, total_updates=total, warmup=None),
            learning_rate_factor=1.0, precision="bfloat16", device=CPU,
            report_every_updates=updates, validate=lambda: (0.0, 0.0), report=lambda state: None,
            reduce=lambda value: value,
        )  # fmt: skip
        return state.history[-1].train_images_per_s

    return measure


def bare_step(depth: int, split: Split) -> Callable[[int], float]:
    """Returns the same for the step alone."""
    model = network(depth)
    optimizer = sgd(model, fused=True)
    pixels = (split.images[:BATCH] - split.images.float().mean(0)).permute(0, 3, 1, 2)
    labels = split.labels[:BATCH]
    model.train()

    def measure(updates: int) -> float:
        started = time.perf_counter()
        for _ in range(updates):
            with autocast("bfloat16", CPU):
                logits = model(pixels)
            loss = cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return updates * BATCH / (time.perf_counter() - started)

    return measure


def main() -> None:
    """Measures and writes."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    split, results = images(), {}
    print(f"{hardware()}, torch {torch.__version__}, commit {commit}, batch {BATCH}")
    for depth, updates in UPDATES.items():
        loops = {"ours": ours, "conventional": conventional, "bare": bare_step}
        measured = {name: loop(depth, split) for name, loop in loops.items()}
        for measure in measured.values():
            measure(WARM_UP)
        turns = [
            {name: measure(updates) for name, measure in measured.items()} for _ in range(TURNS)
        ]

        def median(name: str, turns: list[dict[str, float]] = turns) -> float:
            return statistics.median(turn[name] for turn in turns)

        def ratio(name: str, turns: list[dict[str, float]] = turns) -> float:
            return statistics.median(turn["ours"] / turn[name] for turn in turns)

        results[str(depth)] = {
            "images_per_s": median("ours"),
            "ratio_to_conventional": ratio("conventional"),
            "ratio_to_bare_step": ratio("bare"),
            "conventional_images_per_s": median("conventional"),
            "bare_step_images_per_s": median("bare"),
            "hardware": hardware(),
            "torch": torch.__version__,
            "commit": commit,
        }
        print(
            f"resnet-{depth}: {median('ours'):,.0f} images/s; {ratio('conventional'):.2f} times the "
            f"conventional loop ({median('conventional'):,.0f}), {ratio('bare'):.2f} of the bare "
            f"step ({median('bare'):,.0f})"
        )
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
