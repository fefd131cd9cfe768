"""Photographs: the input pipeline against torchvision's, waiting while training, memory, packing.

`make bench` measures this if STUDY_MIRRORS has the archive of studies/imagenette.yaml. It packs the
archive's images into shards on the embedded S3 and prints:

- input: images per second of `StreamedBatches` and of torchvision's ordinary ImageFolder with a
  DataLoader, with the same augmentation (section 3.4 at 128 pixels: resized shorter side, random crop,
  mirror, color, mean), on the same cores, in turns in one run.
- waiting: the share of a training's time at depth 18 in which it waits for images.
- memory: what a worker and its loaders take after 5,000 and after 50,000 images.
- prepare: images packed per second, with their files kept as they are.
"""

import json
import os
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.transforms import functional

from benchmarks.bench import our_step
from infra.local import s3
from pipeline import machine, params
from pipeline.cluster.packer import collected, pack_here
from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.data.feeding.augmentations import augmenter_of
from pipeline.data.feeding.batches import Batches, batches_of
from pipeline.data.sources import download, listing, packing
from pipeline.data.sources.listing import Entry
from pipeline.data.sources.mirrors import DOWNLOADS
from pipeline.errors import DataError
from pipeline.models.networks import build
from pipeline.models.predict import device, keep_freed_memory
from pipeline.params import ImageNetNetwork, PhotosData, ScaleCrop, Span
from pipeline.storage.shard_store import ShardCache
from pipeline.training.hardware import hardware
from stages.fetch import fetch_s3

BATCH, CROP, LOW, HIGH = 64, 128, 146, 274
TURNS, UPDATES = 5, 50
REPEATED = 10  # times the archive's 5,000 images, so that Ray's start counts less
OUT = Path("benchmarks/photos.json")
RECIPE = ScaleCrop(
    kind="scale_crop", shorter_side_px=Span(low=LOW, high=HIGH), crop_px=CROP, mirror=True,
    colour_sd=0.1,
)  # fmt: skip


def _repeated(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(
        replace(entry, name=f"{turn}-{entry.name}") for turn in range(REPEATED) for entry in entries
    )


def prepared(archive: Path, folder: Path) -> tuple[Dataset, float]:
    """Returns the packed archive, and the images packed per second, Ray's start included."""
    data = PhotosData(
        kind="photos", archive=archive.name, sha256="0" * 64, train_split="train", test_split="val",
        val_images=500, split_seed=0, duplicates_pct=100, shorter_side_px=None, jpeg_quality=None, shard_mb=8,
        shuffle_shards=32, undecodable_images=0,
    )  # fmt: skip
    found = listing.of_folders(listing.in_tar(archive), data, archive.name)
    found = replace(found, train=_repeated(found.train), test=_repeated(found.test))
    pieces, storage = packing.plan(data, found), s3.connect()
    began = time.perf_counter()
    pack_here(pieces, data, "bench-photos")
    rate = sum(len(piece.entries) for piece in pieces) / (time.perf_counter() - began)
    packed = collected(pieces, "bench-photos")
    index = packing.index(data, found.classes, pieces, packed)
    dataset.save(index, folder / "arrays.safetensors", folder / "digest.json")
    return dataset.load(folder / "arrays.safetensors", ShardCache(storage, machine.cores())), rate


def ours(data: Dataset) -> Batches:
    """Our batches of the training images."""
    augmenter = augmenter_of(RECIPE, data, device())
    return batches_of(data.train, augmenter, global_batch_size=BATCH, seed=1, device=device())


class Lighting:
    """AlexNet's color augmentation, as users of torchvision write it."""

    def __init__(self, colour: Tensor) -> None:
        self.colour = colour / 255

    def __call__(self, image: Tensor) -> Tensor:
        """Returns the image moved along the principal components."""
        return image + (self.colour @ (0.1 * torch.randn(3)))[:, None, None]


class RandomShorterSide:
    """Section 3.4's resize."""

    def __call__(self, image: Any) -> Any:
        """Returns the image with a random shorter side."""
        return functional.resize(image, int(torch.randint(LOW, HIGH + 1, ())))


def torchvisions(folder: Path, data: Dataset, workers: int) -> Iterator[Any]:
    """Yields the batches of torchvision's ordinary loader, forever."""
    mean = data.mean.mean(dim=(0, 1)) / 255
    transform = transforms.Compose(
        [
            RandomShorterSide(),
            transforms.RandomCrop(CROP),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            Lighting(data.colour),
            transforms.Normalize(mean.tolist(), [1 / 255] * 3),
        ]
    )
    loader = DataLoader(
        datasets.ImageFolder(folder / "train", transform), BATCH, shuffle=True, num_workers=workers,
        drop_last=True, persistent_workers=True, prefetch_factor=3,
    )  # fmt: skip
    while True:
        yield from loader


def input_rates(folder: Path, data: Dataset, workers: int) -> tuple[float, float, float]:
    """Returns the images per second of ours and of torchvision's, and the median of their ratios."""
    theirs = torchvisions(folder, data, workers)
    ratios, rates = [], []
    for turn in range(-1, TURNS):
        measured = []
        for source in (iter(x for _, x in ours(data).between(0, UPDATES + 6)), theirs):
            for _ in range(6):  # processes start, prefetched batches are used up
                next(source)
            began = time.perf_counter()
            for _ in range(UPDATES - 6 if turn < 0 else UPDATES):
                images, _ = next(source)
            assert images.shape == (BATCH, 3, CROP, CROP)
            measured.append(UPDATES * BATCH / (time.perf_counter() - began))
        if turn >= 0:
            rates.append(measured)
            ratios.append(measured[0] / measured[1])
    mine, other = (statistics.median(column) for column in zip(*rates, strict=True))
    return mine, other, statistics.median(ratios)


def waiting(data: Dataset, updates: int) -> float:
    """Returns the share of its time that a training at depth 18 waits for images."""
    network = ImageNetNetwork(family="imagenet", block="basic", depth=18, shortcut="A")
    _, step = our_step(build(network, 3, len(data.classes), seed=1).to(device()))
    waited, total, last = 0.0, 0.0, time.perf_counter()
    for update, (images, labels) in ours(data).between(0, updates + 5):
        arrived = time.perf_counter()
        step(images, labels)
        done = time.perf_counter()
        if update >= 5:
            waited += arrived - last
            total += done - last
        last = done
    return waited / total


def memory_mb(data: Dataset, images: int) -> float:
    """Returns the memory of this process and its loaders (proportional set size) after some images."""
    me, largest = psutil.Process(), 0.0
    for update, _ in ours(data).between(0, images // BATCH):
        if update == images // BATCH - 1:
            largest = sum(p.memory_full_info().pss for p in (me, *me.children())) / 1e6
    return largest


def archive_of_the_study() -> Path | None:
    """Returns the archive of studies/imagenette.yaml, or None if no mirror has it."""
    data = params.load(Path("studies/imagenette.yaml")).data
    assert isinstance(data, PhotosData)
    try:
        return download.keep(
            download.archives_of(data)[0], os.environ.get("STUDY_MIRRORS", "").split(), DOWNLOADS,
            fetch_s3,
        ).resolve()  # fmt: skip
    except DataError as error:
        print(f"photographs: not measured: {error}")
        return None


def main() -> None:
    """Measures, prints and writes the results."""
    if (archive := archive_of_the_study()) is None:
        return
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    keep_freed_memory()
    print(f"{hardware()}, torch {torch.__version__}, commit {commit}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-photos-") as place:
        folder = Path(place)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        data, packed = prepared(archive, folder)
        print(f"prepare: {packed:,.0f} images/s, Ray's start included", flush=True)
        mine, theirs, ratio = input_rates(folder, data, cores)
        print(
            f"input: {mine:,.0f} images/s, torchvision's {theirs:,.0f}: {ratio:.2f} times",
            flush=True,
        )
        share = waiting(data, 60)
        print(f"waiting for images at depth 18: {100 * share:.1f} % of the time", flush=True)
        few, many = memory_mb(data, 5_000), memory_mb(data, 50_000)
        print(f"memory: {few:,.0f} MB after 5,000 images, {many:,.0f} MB after 50,000", flush=True)
    OUT.write_text(
        json.dumps(
            {
                "hardware": hardware(), "commit": commit, "torch": torch.__version__,
                "prepare_images_per_s": packed, "input_images_per_s": mine,
                "torchvision_images_per_s": theirs, "ratio_to_torchvision": ratio,
                "waiting_share": share, "memory_mb_after_5000": few, "memory_mb_after_50000": many,
            }, indent=2,
        ) + "\n"
    )  # fmt: skip
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
