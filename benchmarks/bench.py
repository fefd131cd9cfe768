"""Images per second of our training loop, against the conventional loop and the bare step.

`make bench` prints ratios and writes benchmarks/bench.json. Each contender is a process of its own;
they take turns in one run, on the same images and the same network, and each figure is a median over
turns, so that a busy machine slows all of them alike. Data: scikit-learn's digits as 32x32 RGB; speed
does not depend on content. It needs neither Ray nor MLflow, so it runs on a bare GPU machine.

- conventional: DataLoader with PIL transforms in two worker processes, float32, NCHW, one
  `.item()` a step.
- bare step: the network's forward, backward and optimizer step on one fixed batch, in our
  precision and layout, without data, augmentation, errors or history.
- side by side: several of our loops at once, each with its share of the cores or of the GPU.
"""

import json
import os
import statistics
import subprocess
import sys
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

from pipeline import params
from pipeline.data.dataset import Split
from pipeline.data.feeding.batches import batches_of
from pipeline.data.feeding.pad_crop import PadCropper
from pipeline.data.sources import digits
from pipeline.models.networks import build
from pipeline.models.predict import autocast, device, keep_freed_memory
from pipeline.params import CifarNetwork, PadCrop
from pipeline.training.capture import CapturedStep
from pipeline.training.hardware import hardware
from pipeline.training.loop import Step, train
from pipeline.training.replicas import Replicas
from pipeline.training.schedules.cosine import CosineSchedule
from pipeline.training.sgd import Sgd
from pipeline.training.state import TrainingState
from pipeline.training.training import Training

BATCH = 128
TURNS = 6
ON_CPU = {20: 24, 56: 10}  # updates a turn, by depth
ON_GPU = {20: 400, 56: 200, 110: 100}
WARM_UP = 6  # updates before each measurement: the fourth captures a graph
DEVICE = device()
ROW = params.load(Path("studies/cifar10.yaml")).models["resnet-20"]
OUT = Path("benchmarks/bench.json")

Measure = Callable[[int], float]
"""Trains the given number of updates and returns images per second."""


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
    row = CifarNetwork(family="cifar", block="basic", depth=depth, shortcut="A")
    return build(row, 3, 10, seed=1).to(DEVICE)


def sgd(model: torch.nn.Module, *, fused: bool, lr: float = 0.1) -> torch.optim.SGD:
    """Returns the paper's optimizer."""
    rate = torch.tensor(lr, device=DEVICE) if fused and DEVICE.type == "cuda" else lr
    return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4, fused=fused)


def synchronize() -> None:
    """Waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def conventional(depth: int, split: Split) -> Measure:
    """The training loop of most examples."""
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
            loss = cross_entropy(model(pixels.to(DEVICE)), labels.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return updates * BATCH / (time.perf_counter() - started)

    return measure


def our_step(model: torch.nn.Module) -> tuple[TrainingState, Step | CapturedStep]:
    """Returns a training and its update as `pipeline.training.run` makes them."""
    keep_freed_memory()
    state = TrainingState(model, Sgd(model.parameters(), 0.1, 0.9, 1e-4))
    step = Step(model, state.optimizer, "bfloat16", label_smoothing=0.0, pieces=1)
    return state, CapturedStep(step) if DEVICE.type == "cuda" else step


def ours(depth: int, split: Split) -> Measure:
    """`pipeline.training.loop.train`."""
    state, step = our_step(network(depth))
    augmenter = PadCropper(
        PadCrop(kind="pad_crop", pad_px=4, mirror=True), split.images.float().mean(0)
    )
    batches = batches_of(split, augmenter, global_batch_size=BATCH, seed=1, device=DEVICE)

    def measure(updates: int) -> float:
        total = state.update + updates
        schedule = CosineSchedule(shape="cosine", base_lr=0.1, total_updates=total, warmup=None)
        row = ROW.model_copy(update={"precision": "bfloat16", "report_every_updates": updates})
        train(
            Training("bench", row, schedule, data="", key=""), state, step, batches, Replicas(),
            finish=lambda: None, validate=lambda: (0.0, 0.0), report=lambda state: None,
        )  # fmt: skip
        return state.history[-1].train_images_per_s

    return measure


def bare_step(depth: int, split: Split) -> Measure:
    """The network's step alone, the most that ours can reach; written out here, without `Step`."""
    keep_freed_memory()
    model = network(depth).train()
    optimizer = sgd(model, fused=True, lr=0.0)  # lr 0: a memorized batch would have tiny gradients
    pixels = split.images[:BATCH] - split.images.float().mean(0)
    pixels, labels = pixels.to(DEVICE).permute(0, 3, 1, 2), split.labels[:BATCH].to(DEVICE)

    def step() -> None:
        with autocast("bfloat16", DEVICE):
            logits = model(pixels)
        loss = cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    if DEVICE.type == "cuda":
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    run = graph.replay if DEVICE.type == "cuda" else step

    def measure(updates: int) -> float:
        synchronize()
        started = time.perf_counter()
        for _ in range(updates):
            run()
        synchronize()
        return updates * BATCH / (time.perf_counter() - started)

    return measure


CONTENDERS = {"ours": ours, "conventional": conventional, "bare": bare_step}


class Contender:
    """A contender in a process of its own, which measures when it is asked to."""

    def __init__(self, name: str, depth: int, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.bench", name, str(depth), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, updates: int) -> None:
        """Starts a measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{updates}\n")
        self._process.stdin.flush()

    def answer(self) -> float:
        """Waits for the measurement and returns it: images per second."""
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"a contender ended with {self._process.wait()}: see above")
        return float(line)

    def measure(self, updates: int) -> float:
        """Returns images per second over that many updates, after a warm-up that does not count.

        The warm-up uses up what a DataLoader has prefetched while the others had their turns.
        """
        for count in (WARM_UP, updates):
            self.ask(count)
            rate = self.answer()
        return rate

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def contend(name: str, depth: int, threads: int) -> None:
    """A contender's own process: reads a number of updates per line, prints images per second."""
    torch.set_num_threads(threads)
    measure = CONTENDERS[name](depth, images())
    for line in sys.stdin:
        print(measure(int(line)), flush=True)


def rotated(names: list[str], turn: int) -> list[str]:
    """Returns the names in a different order in each turn, so that none always follows another."""
    return names[turn % len(names) :] + names[: turn % len(names)]


def side_by_side(depth: int, updates: int, count: int, threads: int) -> float:
    """Returns the images per second of `count` of our loops together, as the median over turns."""
    group = [Contender("ours", depth, max(1, threads // count)) for _ in range(count)]
    sums = []
    for turn in range(-1, TURNS):
        for contender in group:
            contender.ask(updates if turn >= 0 else WARM_UP)
        rates = [contender.answer() for contender in group]
        sums += [sum(rates)] if turn >= 0 else []
    for contender in group:
        contender.close()
    return statistics.median(sums)


def main() -> None:
    """Measures, prints and writes the results."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    results, threads, on_gpu = {}, len(os.sched_getaffinity(0)), DEVICE.type == "cuda"
    torch.set_num_threads(threads)
    print(f"{hardware()}, torch {torch.__version__}, commit {commit}, batch {BATCH}", flush=True)
    for depth, updates in (ON_GPU if on_gpu else ON_CPU).items():
        measured = {name: Contender(name, depth, threads) for name in CONTENDERS}
        turns = [
            {name: measured[name].measure(updates) for name in rotated(list(measured), turn)}
            for turn in range(TURNS)
        ]
        for contender in measured.values():
            contender.close()
        rates = {name: statistics.median(turn[name] for turn in turns) for name in CONTENDERS}
        conventional_ratio, bare_ratio = (
            statistics.median(turn["ours"] / turn[name] for turn in turns)
            for name in ("conventional", "bare")
        )
        together = {
            count: side_by_side(depth, updates, count, threads)
            for count in ((2, 4) if on_gpu else (2,))
        }
        results[str(depth)] = {
            "images_per_s": rates["ours"],
            "ratio_to_conventional": conventional_ratio,
            "ratio_to_bare_step": bare_ratio,
            "conventional_images_per_s": rates["conventional"],
            "bare_step_images_per_s": rates["bare"],
            "side_by_side_images_per_s": together,
            "hardware": hardware(),
            "torch": torch.__version__,
            "commit": commit,
        }
        print(
            f"resnet-{depth}: {rates['ours']:,.0f} images/s; {conventional_ratio:.2f} times the "
            f"conventional loop ({rates['conventional']:,.0f}), {bare_ratio:.2f} of the bare step "
            f"({rates['bare']:,.0f}); side by side "
            + ", ".join(f"{count}: {rate:,.0f}" for count, rate in together.items()),
            flush=True,
        )
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {OUT}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        contend(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
