"""A check from outside: networks as they are commonly written for torch, and ours, at a small budget.

Both train 20 layers with option A for 300 updates of 128 images with a cosine from 0.1, in float32, and are
tested once. From the common way to ours one thing after another is changed:

    common    torch's default weights; torchvision's transforms in a DataLoader, padding black before the
              channels' means are subtracted; torch.optim.SGD
    padding   zeros after that, as in section 4.2: the crop's border is the mean
    mean      the mean of each pixel instead of each channel's
    scale     pixels from 0 to 255, not divided
    network   our network, with the weights that torch's layers begin with
    weights   He et al.'s instead (arXiv 1502.01852, equation 10)
    ours      our batches, our SGD, our step

For a study of images in memory in params.yaml whose data are prepared (`make params STUDY=cifar10-jpeg`,
`dvc repro prepare`):

    python -m benchmarks.outside SEEDS [variant ...]
"""

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data import Dataset as Images
from torchvision import transforms

from pipeline import machine, paths
from pipeline.data import dataset
from pipeline.data.dataset import Dataset, Split
from pipeline.data.feeding import shown
from pipeline.data.feeding.batches import batches_of
from pipeline.data.feeding.pad_crop import PadCropper
from pipeline.models.archs import ARCHS
from pipeline.models.resnet import ResNet, drawn
from pipeline.params import PadCrop
from pipeline.training.loop import Step
from pipeline.training.sgd import Sgd

VARIANTS = ("common", "padding", "mean", "scale", "network", "weights", "ours")
UPDATES, BATCH, LR, MOMENTUM, DECAY = 300, 128, 0.1, 0.9, 1e-4
STD = (0.229, 0.224, 0.225)  # ImageNet's, as many repositories use for other images too
CPU = torch.device("cpu")


class Block(nn.Module):
    """A basic block with option A, as one writes it without this project."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.stride, self.more = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels, H / stride, W / stride)."""
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        same = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(out + pad(same, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)))


def common_network() -> nn.Module:
    """Returns 20 layers with the weights that torch's layers begin with."""
    stages, before = [], 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range(3):
            stages.append(Block(before, width, stride if number == 0 else 1))
            before = width
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Shown(Images[tuple[Tensor, int]]):
    """Images of a split through torchvision's transforms."""

    def __init__(self, split: Split, transform: Callable[[Any], Tensor]) -> None:
        assert isinstance(split.images, Tensor)
        self.images, self.labels, self.transform = split.images.numpy(), split.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(self.images[place]), int(self.labels[place])


def normalizer(variant: int, data: Dataset) -> nn.Module:
    """Returns what becomes of pixels float32 (..., C, H, W) from 0 to 1."""
    if variant < VARIANTS.index("mean"):
        channels: nn.Module = transforms.Normalize(data.mean.mean((0, 1)) / 255, STD)
        return channels
    std = torch.tensor(STD) if variant < VARIANTS.index("scale") else torch.full((3,), 1 / 255)
    return Less(data.mean.permute(2, 0, 1) / 255, std[:, None, None])


class Less(nn.Module):
    """Subtracts each pixel's mean and divides."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., C, H, W)."""
        return (x - self.mean) / self.std


def transform_of(variant: int, data: Dataset) -> Callable[[Any], Tensor]:
    """Returns the transform of a training image uint8 (H, W, C)."""
    moved = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(data.mean.shape[0], 4)]
    normalized = normalizer(variant, data)
    steps = [normalized, *moved] if variant else [*moved, normalized]
    composed: Callable[[Any], Tensor] = transforms.Compose([transforms.ToTensor(), *steps])
    return composed


def lr_at(update: int) -> float:
    """Returns the learning rate of an update, counted from 0."""
    return LR * (1 + math.cos(math.pi * update / UPDATES)) / 2


def error_pct(model: nn.Module, inputs: Iterable[Tensor], labels: Tensor) -> float:
    """Returns the share of images that the model gets wrong."""
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(some).argmax(1) for some in inputs])
    return float(100 * (found != labels).double().mean())


def trained_by_torch(variant: int, data: Dataset) -> float:
    """Trains as one does with torch and torchvision alone; returns the test error in percent."""
    ours = variant >= VARIANTS.index("network")
    model = ResNet(ARCHS["resnet-20"], 3, 10) if ours else common_network()
    if variant >= VARIANTS.index("weights"):
        model = drawn(model, torch.initial_seed())
    split = Shown(data.train, transform_of(variant, data))
    sampler = RandomSampler(split, num_samples=UPDATES * BATCH)  # passes, one after another
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY)
    for update, (images, labels) in enumerate(DataLoader(split, BATCH, sampler=sampler)):
        optimizer.param_groups[0]["lr"] = lr_at(update)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert isinstance(data.test.images, Tensor)
    pixels = (data.test.images.permute(0, 3, 1, 2) / 255).split(500)
    shown_as = normalizer(variant, data)
    return error_pct(model, (shown_as(some) for some in pixels), data.test.labels)


def trained_by_us(data: Dataset, seed: int) -> float:
    """Trains with our batches, step and SGD; returns the test error in percent."""
    model = drawn(ResNet(ARCHS["resnet-20"], 3, 10), seed)
    optimizer = Sgd(model.parameters(), LR, MOMENTUM, DECAY)
    step = Step(model, optimizer, "float32", 0.0, 1)
    crops = PadCropper(PadCrop(kind="pad_crop", pad_px=4, mirror=True), data.mean)
    batches = batches_of(data.train, crops, global_batch_size=BATCH, seed=seed, device=CPU)
    for update, (images, labels) in batches.between(0, UPDATES):
        optimizer.set_lr(lr_at(update))
        step(images, labels)
    return error_pct(model, shown.inputs(data.test, data.mean, None, CPU), data.test.labels)


def measure(variant: str, seed: int) -> dict[str, Any]:
    """Trains one network in one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data, started = dataset.load(paths.ARRAYS, None), time.perf_counter()
    if variant == "ours":
        error = trained_by_us(data, seed)
    else:
        error = trained_by_torch(VARIANTS.index(variant), data)
    return {"variant": variant, "seed": seed, "test_error_pct": error,
            "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip


def all_of(seeds: int, variants: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yields a line for each network, in order, as soon as it is there; one trains on each core."""
    with ProcessPoolExecutor(machine.cores(), get_context("spawn")) as pool:
        running = [
            pool.submit(measure, name, seed) for seed in range(1, seeds + 1) for name in variants
        ]
        for one in running:
            yield one.result()


def main(seeds: str, *variants: str) -> None:
    """Prints each network's test error, then each variant's mean and deviation."""
    found: dict[str, list[float]] = {}
    for line in all_of(int(seeds), variants or VARIANTS):
        print(json.dumps(line), flush=True)
        found.setdefault(line["variant"], []).append(line["test_error_pct"])
    for variant, errors in found.items():
        apart = statistics.stdev(errors) if len(errors) > 1 else math.nan
        print(f"{variant:8} {statistics.mean(errors):5.1f} ± {apart:.1f} % ({len(errors)} seeds)")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*sys.argv[1:])
