"""Packs a large source into shards; what goes into which shard is decided before any image is read.

So a shard that exists already need not be made again, whichever process made it: packing resumes where
it stopped, and a second run writes nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.data.dataset import PACKING, SPLITS
from pipeline.data.feeding.shards import Shard
from pipeline.data.sources import account, shard_files
from pipeline.data.sources.account import content_of
from pipeline.data.sources.choosing import Left
from pipeline.data.sources.in_memory import principal_colours
from pipeline.data.sources.listing import Entry, Listing, Read
from pipeline.data.sources.photos import ODDITIES, THUMBNAIL_PX, examine
from pipeline.errors import DataError
from pipeline.params import Sharded, canonical_sha256

UNDECODABLE = "images that do not decode"
NOT_OF_SHARDS = {"undecodable_images", "shuffle_shards", "archive", "sha256", "duplicates_pct"}
VERSION = 2  # raised when packing makes other shards of the same entries


@dataclass(frozen=True)
class Piece:
    """A shard to be made: its images with their labels and ids."""

    split: str
    number: int
    entries: tuple[Entry, ...]
    labels: tuple[int, ...]
    ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """The shard's name under the key of its packing."""
        return f"{self.split}-{self.number:05d}"

    def to_json(self) -> str:
        """Returns the piece as one line of JSON."""
        return json.dumps({**asdict(self), "entries": [astuple(entry) for entry in self.entries]})

    @staticmethod
    def from_json(line: str) -> "Piece":
        """Returns what `to_json` wrote."""
        facts = json.loads(line)
        entries = tuple(Entry(*entry) for entry in facts["entries"])
        labels, ids = tuple(facts["labels"]), tuple(facts["ids"])
        return Piece(facts["split"], facts["number"], entries, labels, ids)


@dataclass(frozen=True)
class Packed:
    """A finished shard, and the facts about its images that are needed without opening it.

    Of the N images that decoded: `sizes` int32 (N, 2), `labels` and `ids` int64 (N,), and `contents`
    uint64 (N,), a digest of each source file. `pixel_sum` int64 (64, 64, 3) and `colour_products` int64
    (3, 3) are sums over the thumbnails; `oddities` and `modes` have a count of each, `left_out` a line
    for each image that did not decode.
    """

    shard: Shard
    sizes: NDArray[np.int32]
    pixel_sum: NDArray[np.int64]
    colour_products: NDArray[np.int64]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    contents: NDArray[np.uint64]
    oddities: dict[str, int]
    modes: dict[str, int]
    left_out: list[str]

    def tensors(self) -> bytes:
        """Returns it in the safetensors format."""
        names = ("sizes", "pixel_sum", "colour_products", "labels", "ids", "contents")
        said = ("oddities", "modes", "left_out")
        facts = {"shard": asdict(self.shard)} | {name: getattr(self, name) for name in said}
        content: bytes = save_tensors(
            {name: getattr(self, name) for name in names}, {"facts": json.dumps(facts)}
        )
        return content

    @staticmethod
    def parse(content: bytes) -> "Packed":
        """Returns what `tensors` wrote."""
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["facts"])
        return Packed(Shard(**facts.pop("shard")), **load_tensors(content), **facts)


def plan(data: Sharded, listing: Listing) -> list[Piece]:
    """Returns the shards to be made; val is drawn from the training part, and the rest is shuffled."""
    order = np.random.default_rng(data.split_seed).permutation(len(listing.train))
    if data.val_images >= len(order):
        raise DataError(
            f"params.yaml: data.val_images {data.val_images} uses up all {len(order):,} images; none "
            "are left for training: lower it"
        )
    places = {
        "train": order[data.val_images :],
        "val": np.sort(order[: data.val_images]),
        "test": np.arange(len(listing.test)),
    }
    number = {label: place for place, label in enumerate(listing.classes)}
    pieces = []
    for split in SPLITS:
        entries = listing.test if split == "test" else listing.train
        parts = _parts(places[split], entries, data.shard_mb * 1e6)
        for count, part in enumerate(parts):
            chosen = tuple(entries[place] for place in part)
            labels = tuple(number[entry.label] for entry in chosen)
            pieces.append(Piece(split, count, chosen, labels, tuple(map(int, part))))
    return pieces


def _parts(places: NDArray[Any], entries: Sequence[Entry], most: float) -> Iterator[list[int]]:
    """Yields the indices of each shard's images: of `most` bytes at most, or a single larger image."""
    part: list[int] = []
    size = 0
    for place in places:
        if part and size + entries[place].length > most:
            yield part
            part, size = [], 0
        part.append(int(place))
        size += entries[place].length
    if part:
        yield part


def digest_of(pieces: Sequence[Piece]) -> str:
    """Returns the sha256 of what goes into which shard, independent of where the images are stored."""
    return canonical_sha256(
        [
            [piece.name, [(e.split, e.label, e.name, e.length) for e in piece.entries]]
            for piece in pieces
        ]
    )


def key_of(data: Sharded, source: str) -> str:
    """Returns the key under which the shards of a source are stored; `source` identifies its bytes."""
    recipe = data.model_dump(exclude=NOT_OF_SHARDS)
    return canonical_sha256({"source": source, "recipe": recipe, "version": VERSION})[:24]


def pack(piece: Piece, data: Sharded, key: str, read: Read) -> tuple[bytes, Packed]:
    """Returns a shard's bytes and its facts; images that do not decode are left out and listed."""
    oddities: Counter[str] = Counter(dict.fromkeys(ODDITIES, 0))
    modes: Counter[str] = Counter()
    kept, contents, digests, sizes, left_out = [], [], [], [], []
    pixel_sum = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX, 3), np.int64)
    colour_products = np.zeros((3, 3), np.int64)
    for place, entry in enumerate(piece.entries):
        name = f"{entry.split}/{entry.label}/{entry.name}"
        try:
            content = read(entry)
            photo = examine(content, name, data.shorter_side_px, data.jpeg_quality)
        except DataError as error:
            left_out.append(str(error))
            oddities["undecodable"] += 1
            continue
        kept.append(place)
        contents.append(photo.content)
        digests.append(content_of(content))
        modes[photo.mode] += 1
        sizes.append((photo.height, photo.width))
        thumbnail = photo.thumbnail.astype(np.int64)
        pixel_sum += thumbnail
        colour_products += thumbnail.reshape(-1, 3).T @ thumbnail.reshape(-1, 3)
        oddities.update(photo.oddities)
    labels = [piece.labels[place] for place in kept]
    ids = [piece.ids[place] for place in kept]
    content = shard_files.encode(
        contents, labels, ids, [piece.entries[place].name for place in kept]
    )
    shard = Shard(key, shard_files.sha256(content), len(content), len(kept))
    return content, Packed(
        shard,
        np.array(sizes, np.int32).reshape(-1, 2),
        pixel_sum,
        colour_products,
        np.array(labels, dtype=np.int64),
        np.array(ids, dtype=np.int64),
        np.array(digests, dtype=np.uint64),
        dict(oddities),
        dict(modes),
        left_out,
    )


def index(
    data: Sharded, classes: Sequence[str], pieces: Sequence[Piece], packed: Sequence[Packed]
) -> dict[str, NDArray[Any]]:
    """Returns the index of a packed source, as `pipeline.data.dataset.save` takes it.

    Raises DataError if more images do not decode than params.yaml allows, or if a class has none left.
    """
    left_out = [name for part in packed for name in part.left_out]
    if len(left_out) > data.undecodable_images:
        shown = "\n".join(f"  {line}" for line in left_out[:20])
        raise DataError(
            f"{len(left_out)} images do not decode, but data.undecodable_images in params.yaml allows "
            f"{data.undecodable_images}:\n{shown}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for split in SPLITS:
        parts = [part for piece, part in zip(pieces, packed, strict=True) if piece.split == split]
        arrays[f"{split}_labels"] = np.concatenate([part.labels for part in parts])
        arrays[f"{split}_ids"] = np.concatenate([part.ids for part in parts])
        arrays[f"{split}_sizes"] = np.concatenate([part.sizes for part in parts])
        arrays[f"{split}_shards"] = shard_files.table_of(part.shard for part in parts)
    for split in ("train", "test"):
        there = set(arrays[f"{split}_labels"].tolist())
        if lost := [name for number, name in enumerate(classes) if number not in there]:
            raise DataError(
                f"no image of {', '.join(lost[:5])} is left in the {split} split after the validation "
                "and the undecodable images are removed: lower data.val_images, or repair the images"
            )
    trained = [part for piece, part in zip(pieces, packed, strict=True) if piece.split == "train"]
    total = sum(part.pixel_sum for part in trained)
    assert not isinstance(total, int)
    count = len(arrays["train_labels"])
    arrays["mean"] = (total / count).astype(np.float32)
    products = np.sum([part.colour_products for part in trained], axis=0)
    arrays["colour"] = principal_colours(
        total.sum(axis=(0, 1)), products, count * total.shape[0] * total.shape[1]
    )
    arrays["classes"] = shard_files.as_bytes(json.dumps(list(classes)))
    arrays[PACKING] = shard_files.as_bytes(packed[0].shard.key)
    arrays["together"] = np.array([data.shuffle_shards], dtype=np.int64)
    return arrays


def account_of(
    listing: Listing, pieces: Sequence[Piece], packed: Sequence[Packed]
) -> dict[str, Any]:
    """Returns the account of a packed source."""

    def of(split: str, name: str) -> NDArray[Any]:
        parts = [part for piece, part in zip(pieces, packed, strict=True) if piece.split == split]
        return np.concatenate([getattr(part, name) for part in parts])

    modes: Counter[str] = Counter()
    for part in packed:
        modes.update(part.modes)
    odd = oddities(packed)
    left = dict(listing.left)
    if odd["undecodable"]:
        first = next(line for part in packed for line in part.left_out)
        left[UNDECODABLE] = Left(odd["undecodable"], first.partition(":")[0])
    return account.of(
        classes=listing.classes,
        labels={split: of(split, "labels") for split in SPLITS},
        contents={split: of(split, "contents") for split in SPLITS},
        left=left,
        modes=modes,
        flat=odd["all_pixels_equal"],
    )


def oddities(packed: Sequence[Packed]) -> dict[str, int]:
    """Returns the number of images with each oddity."""
    total: Counter[str] = Counter()
    for part in packed:
        total.update(part.oddities)
    return {name: total[name] for name in ODDITIES}
