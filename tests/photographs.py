"""Real photographs for tests: pieces of the two that scikit-learn ships, in ImageNet's layout."""

import io
import tarfile
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data import dataset
from pipeline.data.feeding.shards import Shard
from pipeline.data.sources import listing, packing
from pipeline.data.sources.listing import Entry
from pipeline.params import PhotosData

CLASSES = ("china", "flower")


def piece(name: str, seed: int) -> Image.Image:
    """Returns a part of a photograph, 60 to 110 pixels wide and high."""
    generator = np.random.default_rng(seed)
    with (
        as_file(files("sklearn.datasets.images") / f"{name}.jpg") as path,
        Image.open(path) as image,
    ):
        width, height = generator.integers(60, 110, 2)
        left = int(generator.integers(0, image.width - width))
        top = int(generator.integers(0, image.height - height))
        return image.crop((left, top, left + int(width), top + int(height)))


def jpeg(image: Image.Image, **options: object) -> bytes:
    """Returns the image as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def images(train: int, test: int) -> dict[str, bytes]:
    """Returns the JPEG files of so many images a class by `<split>/<class>/<name>`."""
    found = {}
    for split, count, first in (("train", train, 0), ("val", test, 10_000)):
        for label in CLASSES:
            for number in range(count):
                name = f"{split}/{label}/{label}_{number:04d}.JPEG"
                found[name] = jpeg(piece(label, first + number))
    return found


def tar(path: Path, contents: dict[str, bytes]) -> Path:
    """Writes files as a tar, compressed if its name says so."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def data(**changes: object) -> PhotosData:
    """Returns the section `data` of such a tar, changed as wanted."""
    document = {
        "kind": "photos", "archive": "photos.tar", "sha256": "0" * 64, "train_split": "train",
        "test_split": "val", "val_images": 10, "split_seed": 0, "duplicates_pct": 100, "shorter_side_px": None,
        "jpeg_quality": None, "shard_mb": 0.02, "shuffle_shards": 3, "undecodable_images": 0,
    }  # fmt: skip
    return PhotosData(**{**document, **changes})


class Files:
    """Shards in a folder, by their sha256."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.decoders = folder, 2
        self.asked: list[str] = []

    def path(self, shard: Shard) -> Path:
        """Returns the shard's file."""
        self.asked.append(shard.sha256)
        return self.folder / shard.sha256


def prepared(folder: Path, train: int, test: int, **changes: object) -> dataset.Dataset:
    """Returns photographs packed into shards in a folder; the index is its file `arrays`."""
    found = listed(tar(folder / "photos.tar", images(train, test)))
    pieces = packing.plan(data(**changes), found)
    made = [packing.pack(piece, data(**changes), "key", Entry.read) for piece in pieces]
    for content, packed in made:
        (folder / packed.shard.sha256).write_bytes(content)
    index = packing.index(data(**changes), CLASSES, pieces, [packed for _, packed in made])
    dataset.save(index, folder / "arrays", folder / "digest.json")
    return dataset.load(folder / "arrays", Files(folder))


def listed(path: Path) -> listing.Listing:
    """Returns the listing of such a tar."""
    return listing.of_folders(listing.in_tar(path), data(), path.name)


def small_study(document: dict, archive: str, sha256: str | None) -> None:
    """Makes a document of params.yaml one of photographs: plain-18, and residual 18 as `long`."""
    document["data"] = data(
        archive=archive, sha256=sha256, val_images=30, shard_mb=0.05, shuffle_shards=4
    ).model_dump()
    row = {
        **document["models"]["resnet-8"],
        "network": {"family": "imagenet", "block": "basic", "depth": 18, "shortcut": "A"},
        "augmentation": {"kind": "scale_crop", "shorter_side_px": {"low": 37, "high": 68},
                         "crop_px": 32, "mirror": True, "colour_sd": 0.1},
    }  # fmt: skip
    plain = {"family": "imagenet", "block": "plain", "depth": 18, "shortcut": "none"}
    document["models"] = {
        "plain-18": {**row, "network": plain},
        "long": {**row, "schedule": "schedules/long.yaml", "report_every_updates": 5},
    }
    document["tune"]["resnet-8"] |= {"model": "long", "trials": 1}
    document["ensemble"] = {"members": ["plain-18", "long"]}
    document["evaluation"]["scales_px"] = [32, 48]
