"""`make gpu-check`: checks on this machine's GPU what a CPU cannot show, in a minute.

    python -m benchmarks.gpu_check          # exits with 1 if a check fails, 2 if there is no GPU
    python -m benchmarks.gpu_check cpu      # only the checks that a CPU can do, to try this program

Random images suffice: neither speed nor equality depends on their content. benchmarks/RESULTS.md has what an
H100 showed.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.models.complexity import complexity
from pipeline.models.networks import build
from pipeline.models.predict import keep_freed_memory
from pipeline.params import CifarNetwork, Precision
from pipeline.training.capture import EAGER_UPDATES, MOST_DIFFERENCE, CapturedStep
from pipeline.training.hardware import make_repeatable
from pipeline.training.loop import Step, Update
from pipeline.training.sgd import Sgd
from pipeline.training.state import TrainingState

BATCH, CLASSES = 128, 10
DEPTHS = (20, 56, 110)
UPDATES = 12
# dense peak of one device in TFLOP/s by name: float32, TF32, bfloat16 (NVIDIA's data sheets, no sparsity)
PEAKS = {
    "H100": (67, 495, 990),
    "H200": (67, 495, 990),
    "A100": (19.5, 156, 312),
    "L4": (30, 60, 121),
    "4090": (83, 83, 165),
}


class PlainSgd(Sgd):
    """The same updates, one operation after another."""

    def step(self) -> None:
        """Updates the weights by their gradients."""
        with torch.no_grad():
            if not self.momenta:
                self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]
            for parameter, momentum in zip(self.parameters, self.momenta, strict=True):
                assert parameter.grad is not None
                gradient = parameter.grad + self.weight_decay * parameter
                momentum.mul_(self.momentum).add_(gradient)
                parameter.sub_(self.lr * momentum)


class TorchSgd(Sgd):
    """The same updates by torch's own class."""

    def step(self) -> None:
        """Updates the weights by their gradients."""
        if not hasattr(self, "torchs"):
            self.torchs = torch.optim.SGD(
                self.parameters, 0.0, self.momentum, weight_decay=self.weight_decay, fused=True
            )
        for group in self.torchs.param_groups:
            group["lr"] = self.lr
        self.torchs.step()
        self.momenta = [self.torchs.state[weight]["momentum_buffer"] for weight in self.parameters]


@dataclass(frozen=True)
class Rig:
    """A network of the CIFAR family that trains on a device."""

    device: torch.device
    depth: int = 20
    precision: Precision = "float32"
    optimizer: type[Sgd] = Sgd

    def state(self, seed: int = 1) -> TrainingState:
        """Returns a training before its first update."""
        row = CifarNetwork(family="cifar", block="basic", depth=self.depth, shortcut="A")
        model = build(row, 3, CLASSES, seed=seed).to(self.device)
        return TrainingState(model, self.optimizer(model.parameters(), 0.1, 0.9, 1e-4))

    def step(self, state: TrainingState) -> Step:
        """Returns the ordinary update of a training, not captured as a graph."""
        return Step(state.model, state.optimizer, self.precision, 0.0, 1)

    def batches(self, updates: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches, each a function of its number."""
        for update in range(first, first + updates):
            random = torch.Generator().manual_seed(update)
            images = 60 * torch.randn(BATCH, 3, 32, 32, generator=random)
            labels = torch.randint(CLASSES, (BATCH,), generator=random)
            yield images.to(self.device), labels.to(self.device)

    def train(self, state: TrainingState, step: Update, updates: int, rates: bool = False) -> None:
        """Trains; with `rates` the learning rate changes at every update."""
        for images, labels in self.batches(updates, state.update):
            state.optimizer.set_lr(0.05 / (1 + state.update) if rates else 0.05)
            step(images, labels)
            state.update += 1


def precisions_of(device: torch.device) -> tuple[Precision, ...]:
    """Returns the precisions of a device, in the order of `PEAKS`."""
    return ("float32", "tf32", "bfloat16") if device.type == "cuda" else ("float32", "bfloat16")


def apart(rig: Rig, one: TrainingState, other: TrainingState) -> float:
    """Returns how far apart two trainings' weights are, as a share of how far the first's have moved."""
    return _distance(one, other) / _distance(one, rig.state())


def _distance(one: TrainingState, other: TrainingState) -> float:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return math.sqrt(sum(float((x - y).detach().double().square().sum()) for x, y in pairs))


def worst_update(fast: Rig, slow: Rig, *, captured: bool, rates: bool) -> float:
    """Returns how far one update ends from the other rig's, at worst, as a share of that update.

    Each update is done by both from the same state: over many updates, an untrained network amplifies
    a difference in the last bit to a tenth of the way that the weights have moved.
    """
    state, other, before = fast.state(), slow.state(), slow.state()
    step, reference = fast.step(state), slow.step(other)
    quick: Update = CapturedStep(step) if captured else step
    worst = 0.0
    for update in range(UPDATES):
        for copy in (other, before):
            copy.restore(state.tensors(), update, [])
        fast.train(state, quick, 1, rates)
        slow.train(other, reference, 1, rates)
        worst = max(worst, _distance(state, other) / _distance(other, before))
    return worst


def said(worst: float) -> str:
    """Returns a difference in words; raises AssertionError if it is more than rounding explains."""
    assert worst < MOST_DIFFERENCE, f"an update ends {worst:.2%} of its length apart"
    return (
        "the same bits" if worst == 0 else f"an update ends at most {worst:.1e} of its length apart"
    )


def graph_against_eager(device: torch.device) -> str:
    """A captured update ends where the ordinary one does, even while the rate changes."""
    found = [
        said(worst_update(Rig(device), Rig(device), captured=True, rates=rates))
        for rates in (False, True)
    ]
    return f"{found[0]}; with changing rates {found[1]}"


def fused_against_plain(device: torch.device) -> str:
    """An update of fused SGD ends where plain SGD's does."""
    return said(
        worst_update(Rig(device), Rig(device, optimizer=PlainSgd), captured=False, rates=True)
    )


def sgd_against_torchs(device: torch.device) -> str:
    """A training ends with the same bits as one by `torch.optim.SGD(fused=True)`."""
    ours, torchs = Rig(device), Rig(device, optimizer=TorchSgd)
    states = [ours.state(), torchs.state()]
    for rig, state in zip((ours, torchs), states, strict=True):
        rig.train(state, rig.step(state), UPDATES, rates=True)
    return same_bits(*states)


def same_bits(one: TrainingState, other: TrainingState) -> str:
    """Raises AssertionError if two states differ."""
    assert one.tensors() == other.tensors(), f"their weights are {_distance(one, other):.1e} apart"
    return "the same bits"


def repeated(device: torch.device) -> str:
    """A training that is repeated ends with the same bits, in each precision and from a graph."""
    for precision in precisions_of(device):
        rig = Rig(device, precision=precision)
        states = [rig.state() for _ in range(2)]
        for state in states:
            step = rig.step(state)
            rig.train(state, CapturedStep(step) if device.type == "cuda" else step, UPDATES)
        same_bits(*states)
    return "the same bits"


def resumed(device: torch.device) -> str:
    """A training that is saved and restored ends with the same bits as one that was not interrupted."""
    rig = Rig(device)
    whole, saved, again = rig.state(), rig.state(), rig.state(seed=2)
    rig.train(whole, rig.step(whole), UPDATES)
    rig.train(saved, rig.step(saved), UPDATES // 2)
    again.restore(saved.tensors(), saved.update, [])
    rig.train(again, rig.step(again), UPDATES - UPDATES // 2)
    return same_bits(whole, again)


def precisions(device: torch.device) -> str:
    """bfloat16, and on a GPU also TF32, stay close to float32 for a few updates."""
    states = []
    for precision in ("float32", "bfloat16", *(("tf32",) if device.type == "cuda" else ())):
        rig = Rig(device, precision=precision)
        states.append(rig.state())
        rig.train(states[-1], rig.step(states[-1]), 4)
    found = [apart(rig, states[0], other) for other in states[1:]]
    assert max(found) < 0.2, f"{max(found):.2%} apart"
    if len(found) > 1:
        assert 0 < found[1] < found[0], "TF32 is not between float32 and bfloat16"
    return ", ".join(
        f"{name} {far:.1e} from float32"
        for name, far in zip(("bfloat16", "tf32"), found, strict=False)
    )


def several_rows(device: torch.device) -> str:
    """Four networks in turn on one device: the first ends with the bits that it has alone."""
    rig = Rig(device)
    alone = rig.state(seed=1)
    rig.train(alone, rig.step(alone), UPDATES)
    together = [rig.state(seed=seed) for seed in (1, 2, 3, 4)]
    steps = [rig.step(state) for state in together]
    for _ in range(UPDATES):
        for state, step in zip(together, steps, strict=True):
            rig.train(state, step, 1)
    return same_bits(alone, together[0])


def input_speed(device: torch.device) -> str:
    """Augmented images per second, from a data set in memory."""
    from pipeline.data.dataset import Split
    from pipeline.data.feeding.batches import batches_of
    from pipeline.data.feeding.pad_crop import PadCropper
    from pipeline.params import PadCrop

    images = torch.randint(0, 256, (10_000, 32, 32, 3), dtype=torch.uint8)
    split = Split(images, torch.randint(CLASSES, (10_000,)), torch.arange(10_000))
    augmenter = PadCropper(
        PadCrop(kind="pad_crop", pad_px=4, mirror=True), torch.zeros(32, 32, 3, device=device)
    )
    batches = batches_of(split, augmenter, global_batch_size=BATCH, seed=1, device=device)
    seconds = timed(device, lambda: sum(1 for _ in batches.between(0, 200)))
    return f"{200 * BATCH / seconds:,.0f} images/s"


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Returns the seconds that work takes on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def repeat(step: Update, batch: tuple[Tensor, Tensor], updates: int) -> None:
    """Does an update on one batch again and again."""
    for _ in range(updates):
        step(*batch)


def speeds(device: torch.device) -> Iterator[str]:
    """Yields the images per second of each depth and precision, with the share of the device's peak."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peaks = next((both for key, both in PEAKS.items() if key in name), None)
    for depth in DEPTHS if device.type == "cuda" else DEPTHS[:1]:
        for place, precision in enumerate(precisions_of(device)):
            rig = Rig(device, depth, precision)
            state = rig.state()
            step: Update = rig.step(state)
            if device.type == "cuda":
                step = CapturedStep(rig.step(state))
            batch = next(rig.batches(1))
            updates = 100 if device.type == "cuda" else 3
            for _ in range(EAGER_UPDATES + 2):
                step(*batch)
            work = partial(repeat, step, batch, updates)
            seconds = statistics.median(timed(device, work) for _ in range(3))
            rate = updates * BATCH / seconds
            # two operations each; forward, and twice as much backward
            done = 6 * complexity(state.model.eval(), (3, 32, 32)).multiply_adds * rate
            share = (
                f"{100 * done / (peaks[place] * 1e12):.1f} % of its peak"
                if peaks
                else "peak unknown"
            )
            yield f"depth {depth}, {precision}: {rate:,.0f} images/s, {share}"


EVERYWHERE = (
    fused_against_plain, sgd_against_torchs, repeated, resumed, precisions, several_rows, input_speed,
)  # fmt: skip


def main() -> int:
    """Prints what each check found."""
    on_cpu = sys.argv[1:] == ["cpu"]
    if not torch.cuda.is_available() and not on_cpu:
        print("no GPU: torch sees none on this machine (`make doctor`)")
        return 2
    device = torch.device("cpu" if on_cpu else "cuda")
    keep_freed_memory()
    make_repeatable(device)
    print(torch.cuda.get_device_name() if not on_cpu else "CPU", torch.__version__)
    failed = 0
    for check in EVERYWHERE if on_cpu else (graph_against_eager, *EVERYWHERE):
        try:
            print(f"ok   {check.__name__.replace('_', ' ')}: {check(device)}", flush=True)
        except (AssertionError, RuntimeError) as error:
            failed += 1
            print(f"FAIL {check.__name__.replace('_', ' ')}: {error}", flush=True)
    for line in speeds(device):
        print(f"     {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
