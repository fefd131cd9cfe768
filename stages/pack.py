"""Of stage `prepare`: photographs -> shards on S3 and their index."""

import json
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.cluster import jobs
from pipeline.cluster.jobs import Cluster, Work
from pipeline.cluster.pack import collected, listed_in_prefix, pack_here
from pipeline.data import dataset
from pipeline.data.sources import download, listing, packing
from pipeline.data.sources.listing import Listing
from pipeline.files import exclusively
from pipeline.params import ImageNetData, Sharded, Study, canonical_sha256
from pipeline.storage.shards import LIMIT, ShardStore
from stages import fitting, stage
from stages.fetch import DOWNLOADS, fetch_s3, mirrors

PREPARED, DIGEST = Path("data/arrays.safetensors"), Path("data/digest.json")


def key_of(data: Sharded) -> str:
    """Returns the key of a source's packing; `data/archive` says which bytes it has."""
    source = canonical_sha256(json.loads(Path("data/archive").read_text()))
    return packing.key_of(data, source)


def listed(data: Sharded) -> Listing:
    """Returns what images the source has."""
    places = mirrors()
    archives = download.archives_of(data)
    kept = [
        place
        if (place := download.kept(wanted, DOWNLOADS)).exists()  # else another machine fetched it
        else download.keep(wanted, places, DOWNLOADS, fetch_s3)
        for wanted in archives
    ]
    if isinstance(data, ImageNetData):
        found = listing.of_imagenet(*(place.resolve() for place in kept))
    elif kept:
        tar = listing.plain_tar(kept[0])
        found = listing.of_folders(listing.in_tar(tar.resolve()), data, kept[0].name)
    elif data.archive.startswith("s3://"):
        s3.connect()
        found = listed_in_prefix(data)
    else:
        folder = download.folder_in(places, data.archive)
        found = listing.of_folders(listing.in_folder(folder.resolve()), data, data.archive)
    return found


def packed_pieces(data: Sharded, key: str, pieces: list[packing.Piece]) -> list[packing.Packed]:
    """Returns the packed pieces of a data set, packing what is not on S3 yet.

    An s3:// prefix is packed by the cluster where there is one, all else where its files are: here.
    """
    store, address = ShardStore(s3.connect(), key), jobs.address()
    wanted = [piece for piece in pieces if piece.name not in store.done()]
    if wanted and address and (download.folder_of(data) or "").startswith("s3://"):
        there = Cluster(address, stage.occasion())
        there.require_versions()
        facts = {"kind": "packing", "row": "prepare", "study": params.load().study}
        document = {"kind": "packing", "key": key, "data": data.model_dump(mode="json")}
        document["pieces"] = packing.digest_of(pieces)
        there.finish(Work(key, "prepare", facts, document))
    elif wanted:
        pack_here(wanted, data, key)
    return collected(pieces, key)


def pack(study: Study) -> str:
    """Packs photographs into shards and writes their index; returns what was prepared."""
    data = study.data
    assert isinstance(data, Sharded)
    found, key = listed(data), key_of(data)
    pieces = packing.plan(data, found)
    with exclusively(s3.state_dir() / "locks" / key, "packing this data set"):
        packed = packed_pieces(data, key, pieces)
    odd = packing.oddities(packed)
    index = packing.index(data, found.classes, pieces, packed)
    fitting.settle(study, packing.account_of(found, pieces, packed))
    shards = {"count": len(packed), "bytes": sum(part.shard.bytes for part in packed)}
    recipe = fitting.recipe_of(study)
    dataset.save(index, PREPARED, DIGEST, shards=shards, oddities=odd, recipe=recipe)
    counts = ", ".join(f"{len(index[f'{split}_labels']):,} {split}" for split in dataset.SPLITS)
    unusual = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in odd.items())
    window = data.shuffle_shards * max(part.shard.bytes for part in packed)
    return (
        f"{counts} images in {shards['count']:,} shards ({unusual}); a training uses up to "
        f"{2 * min(window, shards['bytes']) / 1e9:.1f} GB of them at a time, of the {LIMIT} of its node"
    )
