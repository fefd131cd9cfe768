"""Peak memory of a training's first updates: `python -m benchmarks.memory DEPTH [--plain]`.

A residual network of the CIFAR family on 32x32 RGB images at batch 128, with activation
checkpointing or, with --plain, without. Prints one line of JSON; the peak is that of this process.
"""

import argparse
import json
import resource
import time

import torch

from pipeline.models.networks import build
from pipeline.models.predict import keep_freed_memory
from pipeline.params import CifarNetwork
from pipeline.training.hardware import hardware
from pipeline.training.loop import Step
from pipeline.training.sgd import Sgd

BATCH = 128


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("depth", type=int)
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--plain", action="store_true", help="without activation checkpointing")
    given = parser.parse_args()
    keep_freed_memory()
    network = CifarNetwork(family="cifar", block="basic", depth=given.depth, shortcut="A")
    model = build(network, 3, 10, seed=1, recompute=not given.plain)
    optimizer = Sgd(model.parameters(), 0.1, 0.9, 1e-4)
    step = Step(model, optimizer, precision=given.precision, label_smoothing=0.0, pieces=1)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32)) - 128.0
    images, labels = images.to(memory_format=torch.channels_last), torch.arange(BATCH) % 10
    losses, started = [], time.perf_counter()
    for _ in range(given.updates):
        losses.append(float(step(images, labels)[0]))
    seconds = (time.perf_counter() - started) / given.updates
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "depth": given.depth,
                "activation_checkpointing": not given.plain,
                "precision": given.precision,
                "peak_gib": round(peak / 2**30, 2),
                "losses": losses,
                "seconds_an_update": round(seconds, 2),
                "hardware": hardware(),
            }
        )
    )


if __name__ == "__main__":
    main()
