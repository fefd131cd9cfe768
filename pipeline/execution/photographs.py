"""Packs photographs into shards on S3, with an index, on this machine or on the cluster."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline import paths
from pipeline.cluster.packer import S3, collected, listed_in_prefix, pack_here
from pipeline.data import dataset, fitting
from pipeline.data.sources import download, listing, packing
from pipeline.data.sources.listing import Listing
from pipeline.data.sources.mirrors import DOWNLOADS, mirrors
from pipeline.execution.begun import lock_of
from pipeline.execution.place import named_cluster
from pipeline.files import exclusively
from pipeline.params import ImageNetData, Sharded, Study, canonical_sha256
from pipeline.storage.node import LIMIT
from pipeline.storage.objects import Storage, fetch_address
from pipeline.storage.shard_store import ShardStore


def key_of(data: Sharded) -> str:
    """Returns the key of a source's packing; `data/archive` says which bytes the source has."""
    return packing.key_of(data, canonical_sha256(_fetched()))


def _fetched() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.ARCHIVE.read_text())
    return found


def listed(data: Sharded) -> Listing:
    """Returns a listing of the images that the source has."""
    places = mirrors()
    archives = download.archives_of(data)
    kept = [
        place
        if (place := download.kept(wanted, DOWNLOADS)).exists()  # else another machine fetched it
        else download.keep(wanted, places, DOWNLOADS, fetch_address)
        for wanted in archives
    ]
    if isinstance(data, ImageNetData):
        found = listing.of_imagenet(*(place.resolve() for place in kept))
    elif kept:
        tar = listing.plain_tar(kept[0])
        found = listing.of_folders(listing.in_tar(tar.resolve()), data, kept[0].name)
    elif data.archive.startswith(S3):
        found = listed_in_prefix(data, content=_fetched()["content"])
    else:
        folder = download.folder_in(places, data.archive)
        found = listing.of_folders(listing.in_folder(folder.resolve()), data, data.archive)
    return found


def pack(study: Study, storage: Storage) -> str:
    """Packs photographs into shards and writes their index; returns a text on what was prepared."""
    data = study.data
    assert isinstance(data, Sharded)
    found, key = listed(data), key_of(data)
    pieces = packing.plan(data, found)
    with exclusively(lock_of(key), "packing this data set"):
        _pack_missing(study, data, key, pieces, storage)
        packed = collected(pieces, key)
    odd = packing.oddities(packed)
    index = packing.index(data, found.classes, pieces, packed)
    fitting.settle(study, packing.account_of(found, pieces, packed))
    size = sum(part.shard.bytes for part in packed)
    shards = {"key": key, "count": len(packed), "bytes": size}
    recipe = fitting.recipe_of(study)
    dataset.save(index, paths.ARRAYS, paths.DIGEST, shards=shards, oddities=odd, recipe=recipe)
    counts = ", ".join(f"{len(index[f'{split}_labels']):,} {split}" for split in dataset.SPLITS)
    unusual = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in odd.items())
    window = data.shuffle_shards * max(part.shard.bytes for part in packed)
    return (
        f"{counts} images in {shards['count']:,} shards ({unusual}); a training uses up to "
        f"{2 * min(window, size) / 1e9:.1f} GB of them at a time, out of {LIMIT} on its node"
    )


def _pack_missing(
    study: Study, data: Sharded, key: str, pieces: Sequence[packing.Piece], storage: Storage
) -> None:
    """Packs what is not on S3 yet: an s3:// prefix on the cluster, if there is one, all else here."""
    done = ShardStore(storage, key).done()
    missing = [piece for piece in pieces if piece.name not in done]
    if not missing:
        return
    there = named_cluster(study, storage)
    if there is not None and (download.folder_of(data) or "").startswith(S3):
        there.pack(data, key, packing.digest_of(pieces))
    else:
        pack_here(missing, data, key)
