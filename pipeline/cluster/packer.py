"""Packs a large source into shards on S3 with Ray Data, on this machine or on all nodes of a cluster.

Each shard is one task, which reads and examines its images, stores the shard and then its facts. Shards
that are already stored are not made again.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from ray.exceptions import RayError

from pipeline import paths
from pipeline.cluster import pieces as work
from pipeline.cluster import session
from pipeline.cluster.retry import PATIENCE_S, patience_s, reason, until_done
from pipeline.data.sources import listing, packing
from pipeline.data.sources.listing import Entry, Listing
from pipeline.data.sources.packing import Packed, Piece
from pipeline.errors import DataError, StorageError, StudyError, TrainingError
from pipeline.params import PhotosData, Sharded, canonical_sha256, validate
from pipeline.progress import Progress
from pipeline.storage.objects import Storage, in_prefix
from pipeline.storage.shard_store import ShardStore

S3 = "s3://"


def listed_in_prefix(data: PhotosData, patience_s: float = 0.0, content: str = "") -> Listing:
    """Returns the listing of an s3:// prefix; raises StorageError if it is no longer `content`, the digest of it."""
    bucket, prefix, found = in_prefix(data.archive, patience_s)
    if content and canonical_sha256(found) != content:
        raise StorageError(
            f"{data.archive}: its objects have changed since `fetch` listed them: `dvc repro -f fetch` takes them "
            "as they are now"
        )
    places = ((name, f"{S3}{bucket}/{prefix}{name}", 0, size) for name, (size, _) in found.items())
    return listing.of_folders(places, data, data.archive)


def pack_here(pieces: Sequence[Piece], data: Sharded, key: str) -> None:
    """Packs pieces on this machine."""
    try:
        with session.embedded():
            _pack_all(pieces, data, key, patience_s())
    except RayError as error:
        what = reason(error)
        raise what if isinstance(what, StudyError) else TrainingError(f"prepare: {what}") from error


def collected(pieces: Sequence[Piece], key: str) -> list[Packed]:
    """Returns the facts of packed pieces, in order."""
    store = ShardStore(Storage(patience_s=patience_s()), key)
    packed = []
    with Progress("index", len(pieces), "shards") as progress:
        for piece in pieces:
            part, label_of = store.get(piece.name), dict(zip(piece.ids, piece.labels, strict=True))
            if any(
                label_of.get(i) != label for i, label in zip(part.ids, part.labels, strict=True)
            ):
                raise DataError(
                    f"{paths.ARCHIVE}: the images have changed since `fetch`: the shard {piece.name} of {key} was packed "
                    "of others: `dvc repro -f fetch` takes them as they are now"
                )
            packed.append(part)
            progress.advance(1)
    return packed


def pack_there(spec: dict[str, Any]) -> None:
    """Packs the s3:// prefix of a job's document on the cluster that this driver has joined."""
    data: PhotosData = validate(PhotosData, spec["data"], "job")
    pieces = packing.plan(data, listed_in_prefix(data, PATIENCE_S))
    if (found := packing.digest_of(pieces)) != spec["pieces"]:
        raise StorageError(
            f"{data.archive}: its objects have changed since they were listed (found {found[:8]}, "
            f"wanted {spec['pieces'][:8]}): `dvc repro -f fetch` lists them again"
        )
    store = ShardStore(Storage(patience_s=PATIENCE_S), spec["key"])

    def attempt() -> None:
        there = store.done()
        wanted = [piece for piece in pieces if piece.name not in there]
        _pack_all(wanted, data, spec["key"], PATIENCE_S)

    until_done("prepare", lambda: len(store.done()), attempt, (RayError,))


def _pack_all(pieces: Sequence[Piece], data: Sharded, key: str, patience_s: float) -> None:
    settings = {"data": data.model_dump(), "key": key, "patience_s": patience_s}
    lines = [{"piece": piece.to_json()} for piece in pieces]
    total = sum(len(piece.entries) for piece in pieces)
    with Progress("pack", total, "images") as progress:
        for part in work.done(lines, _pack, fn_kwargs=settings):
            progress.advance(part["images"])


def _pack(line: work.Part, data: dict[str, Any], key: str, patience_s: float) -> work.Part:
    """One task: packs a piece and stores it."""
    piece, storage = Piece.from_json(line["piece"]), Storage(patience_s=patience_s)
    recipe: Sharded = validate(Sharded, data, "data")
    try:
        content, packed = packing.pack(piece, recipe, key, _reader(patience_s))
        ShardStore(storage, key).put(piece.name, content, packed)
    except StudyError as error:
        return work.failed(error)
    return {"images": len(piece.entries)}


def _reader(patience_s: float) -> listing.Read:
    """Returns a function that reads an image's bytes, from a file or from S3."""

    @cache
    def bucket_of(name: str) -> Storage:
        return Storage(name, patience_s=patience_s)

    def read(entry: Entry) -> bytes:
        if not entry.container.startswith(S3):
            return entry.read()
        bucket, _, key = entry.container.removeprefix(S3).partition("/")
        content = bucket_of(bucket).get(key)
        if content is None:
            raise StorageError(f"{entry.container}: no longer on S3, though it was listed")
        return content

    return read
