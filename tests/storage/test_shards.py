"""Shards on a real S3 server, and a node's cache of them."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from pipeline.cluster.packer import collected, listed_in_prefix
from pipeline.data.sources import packing
from pipeline.data.sources.listing import Entry
from pipeline.data.sources.packing import Packed, Piece
from pipeline.errors import DataError, ParamsError, StorageError
from pipeline.params import canonical_sha256
from pipeline.storage import node
from pipeline.storage.datasets import DataSets
from pipeline.storage.layout import SHARDS, Instance, Instances
from pipeline.storage.objects import Storage, in_prefix
from pipeline.storage.shard_store import ShardCache, ShardStore
from tests import pace
from tests.photographs import data, images, listed, tar


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("STUDY_CACHE_GB", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def stored(storage: Storage, tmp_path: Path) -> list[tuple[Piece, bytes, Packed]]:
    """Shards that were packed and stored."""
    pieces = packing.plan(data(), listed(tar(tmp_path / "photos.tar", images(20, 4))))
    found = [(piece, *packing.pack(piece, data(), "a-packing", Entry.read)) for piece in pieces]
    for piece, content, packed in found:
        ShardStore(storage, "a-packing").put(piece.name, content, packed)
    return found


def test_shards_and_their_facts_come_back(storage: Storage, stored: list, cache_dir: Path):
    store, cache = ShardStore(storage, "a-packing"), ShardCache(storage)
    assert store.done() == {piece.name for piece, _, _ in stored}
    for piece, content, packed in stored:
        assert store.get(piece.name).tensors() == packed.tensors()
        assert cache.path(packed.shard).read_bytes() == content


def test_a_shard_without_its_facts_is_not_there(storage: Storage, stored: list):
    there = Instance(storage, SHARDS, "a-packing")
    storage.delete(there.manifest_key(stored[0][0].name))
    assert stored[0][0].name not in ShardStore(storage, "a-packing").done()


def test_a_damaged_shard_is_named_and_not_used(storage: Storage, stored: list, cache_dir: Path):
    _, content, packed = stored[0]
    key = Instance(storage, SHARDS, "a-packing").object_key(packed.shard.sha256)
    storage.put(key, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StorageError, match=packed.shard.key) as caught:
        ShardCache(storage).path(packed.shard)
    assert packed.shard.sha256 in str(caught.value)
    assert not list(cache_dir.rglob("*.arrow"))


def test_shards_are_read_while_they_are_packed_again(
    storage: Storage, stored: list, cache_dir: Path
):
    Instances(storage, SHARDS, "a-packing").begin("again")
    assert ShardStore(storage, "a-packing").done() == set()
    _, content, packed = stored[0]
    assert ShardCache(storage).path(packed.shard).read_bytes() == content


def test_a_cut_off_file_in_the_cache_is_fetched_again(
    storage: Storage, stored: list, cache_dir: Path
):
    _, content, packed = stored[0]
    path = ShardCache(storage).path(packed.shard)
    path.write_bytes(content[:100])
    assert ShardCache(storage).path(packed.shard).read_bytes() == content


def test_the_cache_is_bounded_and_forgets_what_was_not_used_for_longest(
    storage: Storage, stored: list, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    shards = [packed.shard for _, _, packed in stored]
    monkeypatch.setenv("STUDY_CACHE_GB", str(3.5 * max(shard.bytes for shard in shards) / 1e9))
    cache = ShardCache(storage)
    for shard in shards:
        cache.path(shards[0])  # used again and again
        cache.path(shard)
        size = sum(path.stat().st_size for path in cache_dir.rglob("*.arrow"))
        assert size <= 3.5e0 * max(shard.bytes for shard in shards)
    names = {path.stem for path in cache_dir.rglob("*.arrow")}
    assert {shards[0].sha256, shards[-1].sha256} <= names
    assert shards[1].sha256 not in names


def test_many_who_fetch_at_once_stay_within_the_limit_and_clear_up_after_the_killed(
    storage: Storage, stored: list, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    shards = [packed.shard for _, _, packed in stored]
    limit = 2.5 * max(shard.bytes for shard in shards)
    monkeypatch.setenv("STUDY_CACHE_GB", str(limit / 1e9))
    left = cache_dir / "shards" / f"{'0' * 64}.part"  # of a process that was killed
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    makes_room = threading.Barrier(len(shards))
    make_room = node.make_room

    def all_at_once(needed: int) -> None:
        make_room(needed)
        makes_room.wait(pace.hangs_after_s(60))

    monkeypatch.setattr(node, "make_room", all_at_once)
    with ThreadPoolExecutor(len(shards)) as pool:
        list(pool.map(lambda shard: ShardCache(storage).path(shard), shards))
    copies = list(cache_dir.rglob("*.arrow"))
    assert copies
    assert sum(path.stat().st_size for path in copies) <= limit
    assert not list(cache_dir.rglob("*.part"))


def test_data_sets_and_shards_share_the_room(
    storage: Storage, stored: list, cache_dir: Path, digits_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    digest = json.loads((digits_path.parent / "digest.json").read_text())["digest"]
    DataSets(storage).upload(digest, digits_path)
    copy = DataSets(storage).cached(digest)
    size, shards = copy.stat().st_size, [packed.shard for _, _, packed in stored]
    monkeypatch.setenv("STUDY_CACHE_GB", str((size + 2.5 * shards[0].bytes) / 1e9))
    cache = ShardCache(storage)
    for shard in shards[:3]:
        DataSets(storage).cached(digest)  # used again and again
        cache.path(shard)
    assert copy.exists() and len(list(cache_dir.rglob("*.arrow"))) == 2
    for shard in shards[2:5]:
        cache.path(shard)
    assert not copy.exists()
    assert DataSets(storage).cached(digest).read_bytes() == digits_path.read_bytes()


def test_many_ask_for_one_shard_and_it_is_fetched_whole(
    storage: Storage, stored: list, cache_dir: Path
):
    _, content, packed = stored[0]
    found: list[bytes] = []

    def ask() -> None:
        found.append(ShardCache(storage).path(packed.shard).read_bytes())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [content] * 8


@pytest.mark.parametrize("limit", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(
    storage: Storage, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, limit: str
):
    monkeypatch.setenv("STUDY_CACHE_GB", limit)
    with pytest.raises(ParamsError, match="STUDY_CACHE_GB"):
        ShardCache(storage)


def test_a_set_whose_index_names_other_shards_takes_the_place_of_the_earlier_one(
    storage: Storage, digits_path: Path, cache_dir: Path, tmp_path: Path
):
    """Photographs that were moved and packed again: equal in content, and so in digest, but not in their index."""
    digest = json.loads((digits_path.parent / "digest.json").read_text())["digest"]
    with safe_open(digits_path, "np") as file:
        tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    moved = tmp_path / "moved.safetensors"
    save_file(tensors, moved, {**facts, "of": "another packing"})
    for path in (digits_path, moved, digits_path):
        DataSets(storage).upload(digest, path)
        assert DataSets(storage).cached(digest).read_bytes() == path.read_bytes()


def test_shards_of_a_source_that_has_changed_since_are_not_taken_for_its_own(
    storage: Storage, stored: list, tmp_path: Path
):
    """Packing went on after images were added: others are in val, and one image would be in both."""
    pieces = [piece for piece, _, _ in stored]
    assert len(collected(pieces, "a-packing")) == len(pieces)
    more = packing.plan(data(), listed(tar(tmp_path / "more.tar", images(22, 4))))
    with pytest.raises(DataError, match="was packed of others: `dvc repro -f fetch`"):
        collected(more, "a-packing")


def test_a_prefix_that_has_changed_since_it_was_fetched_is_told(storage: Storage):
    prefix = f"s3://{storage.bucket}/changing/"
    for number in range(3):
        storage.put(f"changing/train/a/{number}.jpg", b"x")
    content = canonical_sha256(in_prefix(prefix)[2])
    of_prefix = data().model_copy(update={"archive": prefix})
    assert len(in_prefix(prefix, 0.0)[2]) == 3
    storage.put("changing/train/a/3.jpg", b"x")
    with pytest.raises(StorageError, match="changed since `fetch` listed them"):
        listed_in_prefix(of_prefix, content=content)
