"""The bucket and the checkpoints in it, on a real server."""

import uuid
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.s3 import Storage, fetch_address


def facts(update: int) -> dict[str, Any]:
    return {"update": update, "total_updates": 9, "history": []}


@pytest.fixture
def checkpoints(storage: Storage) -> CheckpointStore:
    return CheckpointStore(storage, uuid.uuid4().hex)


def elsewhere(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Chooses another S3, as a user does."""
    monkeypatch.setenv("STUDY_BUCKET", "resnet-study")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")


def test_objects_come_back(storage: Storage):
    storage.put("a/b", b"12")
    assert storage.get("a/b") == b"12"
    assert storage.get("a/none") is None
    assert storage.keys("a/") == ["a/b"]
    storage.delete("a/b", "a/none")
    assert storage.keys("a/") == []


def test_the_last_checkpoint_comes_back(checkpoints: CheckpointStore):
    assert checkpoints.latest() is None
    for update in (3, 6, 12):
        checkpoints.save(f"weights {update}".encode(), facts(update))
    found = checkpoints.latest()
    assert found is not None
    assert (found[0], found[1]["update"]) == (b"weights 12", 12)


def test_two_checkpoints_are_kept(checkpoints: CheckpointStore, storage: Storage):
    for update in (3, 6, 12):
        checkpoints.save(b"w", facts(update))
    kept = [key.rsplit("/", 1)[1] for key in storage.keys(checkpoints._prefix)]
    assert kept == [
        "00000006.json",
        "00000006.safetensors",
        "00000012.json",
        "00000012.safetensors",
    ]


def test_tensors_without_their_json_never_happened(checkpoints: CheckpointStore, storage: Storage):
    checkpoints.save(b"good", facts(3))
    storage.put(checkpoints._tensors_key(6), b"killed in between")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == b"good"


@pytest.mark.parametrize("damage", [b"", b'{"upda', None])
def test_a_damaged_checkpoint_is_passed_over(
    checkpoints: CheckpointStore, storage: Storage, damage: bytes | None,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    checkpoints.save(b"good", facts(3))
    checkpoints.save(b"newer", facts(6))
    if damage is None:
        storage.put(checkpoints._tensors_key(6), b"baad!")
    else:
        storage.put(checkpoints._facts_key(6), damage)
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == b"good"
    assert "going on from the checkpoint before" in capfd.readouterr().err


def test_damaged_tensors_are_refused_by_name(checkpoints: CheckpointStore, storage: Storage):
    checkpoints.save(b"good", facts(3))
    storage.put(checkpoints._tensors_key(3), b"baad")
    with pytest.raises(StorageError, match=r"00000003\.safetensors: sha256 .*, expected"):
        checkpoints.latest()


def test_clear_forgets(checkpoints: CheckpointStore):
    checkpoints.save(b"w", facts(3))
    checkpoints.clear()
    assert checkpoints.latest() is None


def test_refused_keys_are_told(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    elsewhere(monkeypatch, storage.place.endpoint or "")
    with pytest.raises(StorageError, match="the keys are refused"):
        Storage().get("a")


def test_an_unreachable_server_is_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch):
    elsewhere(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9: cannot be reached .*make up"):
        Storage().ensure_bucket()


def test_a_bucket_that_another_has_just_made_is_as_good(storage: Storage):
    fresh = Storage("made-by-two", at=storage.place)
    for _ in range(2):  # both have looked before either made it
        fresh._create_bucket()
    fresh.put("a", b"1")


def test_a_missing_bucket_is_told(storage: Storage):
    with pytest.raises(StorageError, match="STUDY_BUCKET"):
        Storage("no-such-bucket").put("a", b"1")


def test_a_prefix_is_packed_the_same_each_time(storage: Storage, tmp_path):
    for name in ("b", "a/c"):
        storage.put(f"images/{name}", name.encode())
    for target in ("one", "two"):
        fetch_address(f"s3://{storage.bucket}/images/", tmp_path / target)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    from pipeline.data.archives import members

    assert list(members(tmp_path / "one")) == [("a/c", b"a/c"), ("b", b"b")]


def test_an_empty_prefix_is_told(storage: Storage, tmp_path):
    with pytest.raises(StorageError, match="no object lies under this prefix"):
        fetch_address(f"s3://{storage.bucket}/nothing/", tmp_path / "x")
