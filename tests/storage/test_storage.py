"""The bucket and the checkpoints in it, on a real server."""

import http.server
import json
import multiprocessing
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from pipeline.errors import BusyError, StorageError
from pipeline.storage import layout, objects
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage, fetch_address
from tests import pace
from tests.checkpoints import checkpoint, facts
from tests.conftest import elsewhere


@pytest.fixture
def checkpoints(storage: Storage) -> CheckpointStore:
    return CheckpointStore(storage, uuid.uuid4().hex)


@contextmanager
def answering(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[http.server.BaseHTTPRequestHandler], None]
) -> Iterator[None]:
    """While the context lasts, the S3 is a server that answers each GET so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        elsewhere(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        yield
    finally:
        server.shutdown()
        server.server_close()


def test_objects_come_back(storage: Storage):
    storage.put("a/b", b"12")
    assert storage.get("a/b") == b"12"
    assert storage.get("a/none") is None
    assert storage.keys("a/") == ["a/b"]
    storage.delete("a/b", "a/none")
    assert storage.keys("a/") == []


def test_a_manifest_that_a_lost_attempt_wrote_late_goes_with_the_end(storage: Storage):
    first, second = (CheckpointStore(storage, "late") for _ in range(2))
    first.save(checkpoint(b"weights 3", 3))
    left = first.instance.manifest_key("000001-00000004")
    content = storage.get(first.instance.manifest_key("000001-00000003"))
    second.save(checkpoint(b"weights 6", 6))
    assert content is not None
    storage.put(left, content)  # from a laptop that slept
    second.save(checkpoint(b"weights 9", 9))
    assert left not in storage.keys(first.instance.prefix)
    found = second.latest()
    assert found is not None and found.facts.update == 9
    first.clear()


def test_the_last_checkpoint_comes_back(checkpoints: CheckpointStore):
    assert checkpoints.latest() is None
    for update in (3, 6, 12):
        checkpoints.save(checkpoint(f"weights {update}".encode(), update))
    found = checkpoints.latest()
    assert found is not None
    assert (found.tensors, found.facts.update) == (b"weights 12", 12)


def objects_in(checkpoints: CheckpointStore, storage: Storage) -> dict[str, list[str]]:
    """Returns the names of what a training has on S3, by folder."""
    found: dict[str, list[str]] = {}
    for key in storage.keys(checkpoints.instance.prefix):
        folder, _, name = key[len(checkpoints.instance.prefix) :].rpartition("/")
        found.setdefault(folder, []).append(name)
    return found


def test_two_checkpoints_are_kept(checkpoints: CheckpointStore, storage: Storage):
    for update in (3, 6, 12):
        checkpoints.save(checkpoint(f"weights {update}".encode(), update))
    found = objects_in(checkpoints, storage)
    assert found["manifests"] == ["000001-00000006.json", "000001-00000012.json"]
    assert sorted(found["objects"]) == sorted(
        layout.sha256(f"weights {update}".encode()) for update in (6, 12)
    )


def test_equal_tensors_are_one_object_as_long_as_one_names_them(
    checkpoints: CheckpointStore, storage: Storage
):
    for update in (3, 6, 12):
        checkpoints.save(checkpoint(b"the same", update))
    assert len(objects_in(checkpoints, storage)["objects"]) == 1
    assert checkpoints.latest() == checkpoint(b"the same", 12, attempt=1)


def test_tensors_without_a_manifest_never_happened_and_go(
    checkpoints: CheckpointStore, storage: Storage
):
    checkpoints.save(checkpoint(b"good", 3))
    checkpoints.instance.put_object(b"killed in between")
    assert checkpoints.latest() == checkpoint(b"good", 3, attempt=1)
    after = CheckpointStore(storage, checkpoints._key)
    after.save(checkpoint(b"better", 6))
    found = objects_in(checkpoints, storage)
    assert sorted(found["objects"]) == sorted(map(layout.sha256, (b"good", b"better")))


DAMAGES = {
    "tensors": lambda store: store.instance.object_key(layout.sha256(b"newer")),
    "manifest": lambda store: store.instance.manifest_key("000001-00000006"),
}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("damage", [b"", b'{"upda', None])
def test_a_damaged_checkpoint_is_passed_over_and_told(
    checkpoints: CheckpointStore, storage: Storage, what: str, damage: bytes | None,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    checkpoints.save(checkpoint(b"good", 3))
    checkpoints.save(checkpoint(b"newer", 6))
    key = DAMAGES[what](checkpoints)
    if damage is None:
        storage.delete(key)
    else:
        storage.put(key, damage)
    found = checkpoints.latest()
    assert found is not None
    assert found.tensors == b"good"
    if not (what == "manifest" and damage is None):  # without its manifest it never happened
        assert "going on from the previous checkpoint" in capfd.readouterr().err


def test_what_is_collected_is_what_was_judged_finished(
    checkpoints: CheckpointStore, storage: Storage
):
    checkpoints.save(checkpoint(b"before", 6))
    checkpoints.save(checkpoint(b"last", 9))
    assert checkpoints.finished() == checkpoint(b"last", 9, attempt=1)
    storage.put(checkpoints.instance.object_key(layout.sha256(b"last")), b"lost")
    assert checkpoints.finished() is None
    found = checkpoints.latest()
    assert found is not None
    assert (found.tensors, found.facts.update) == (b"before", 6)


@pytest.mark.parametrize("trainings", [60, pytest.param(300, marks=pytest.mark.trial)])
def test_never_a_wrong_result_whatever_is_damaged(storage: Storage, trainings: int):
    """Flips, cuts and deletions: what comes back is whole and what it says, or nothing."""
    moments = random.Random(5)
    for number in range(trainings):
        store = CheckpointStore(storage, f"damaged-{number}")
        saved = {update: f"weights {update}".encode() * 50 for update in (3, 6, 9)}
        for update, tensors in saved.items():
            store.save(checkpoint(tensors, update))
        for _ in range(moments.choice((1, 1, 2))):
            key = moments.choice(storage.keys(store.instance.prefix))
            content = bytearray(storage.get(key) or b"?")
            how = moments.choice(("flip", "cut", "delete"))
            if how == "delete":
                storage.delete(key)
            else:
                place = moments.randrange(len(content))
                content[place] ^= 1 << moments.randrange(8)
                storage.put(key, bytes(content[:place] if how == "cut" else content))
        again = CheckpointStore(storage, f"damaged-{number}")
        try:
            finished, last = again.finished(), again.latest()
        except StorageError as error:
            assert "afresh" in str(error)
            continue
        for found in (finished, last):
            assert found is None or found.tensors == saved[found.facts.update]
        assert finished is None or finished.facts.update == 9


def test_damaged_tensors_are_refused_by_name(checkpoints: CheckpointStore, storage: Storage):
    checkpoints.save(checkpoint(b"good", 3))
    digest = layout.sha256(b"good")
    storage.put(checkpoints.instance.object_key(digest), b"baad")
    with pytest.raises(StorageError, match=f"objects/{digest}: found sha256 .*, expected"):
        checkpoints.latest()


def test_a_worker_that_was_cut_off_is_fenced(checkpoints: CheckpointStore, storage: Storage):
    checkpoints.save(checkpoint(b"first", 3))
    successor = CheckpointStore(storage, checkpoints._key)
    successor.save(checkpoint(b"second", 3))
    with pytest.raises(BusyError, match="attempt 2 at this training has begun elsewhere"):
        checkpoints.save(checkpoint(b"still alive", 6))
    found = successor.latest()
    assert found is not None
    assert (found.tensors, found.facts.attempt) == (b"second", 2)


def test_a_bucket_that_another_has_just_made_is_used(storage: Storage):
    storage._create_bucket()  # as who looked for it before it was there


def test_of_many_who_begin_at_once_one_may_commit(storage: Storage):
    stores = [CheckpointStore(storage, "claimed", instance=1) for _ in range(8)]

    def claim(store: CheckpointStore) -> None:
        store._attempt = store._claim()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(claim, stores))
    committed = 0
    for store in stores:
        with suppress(BusyError):
            store.save(checkpoint(b"w", 3))
            committed += 1
    assert committed == 1


def test_another_instance_begins_with_nothing_and_deletes_nothing(
    checkpoints: CheckpointStore, storage: Storage
):
    checkpoints.save(checkpoint(b"w", 9))
    instances = layout.Instances(storage, layout.TRAININGS, checkpoints._key)
    assert instances.current() == 1
    assert instances.begin("a request") == instances.begin("a request") == 2
    assert CheckpointStore(storage, checkpoints._key).latest() is None
    checkpoints.save(checkpoint(b"of the first", 9))  # it still trains
    assert CheckpointStore(storage, checkpoints._key).latest() is None
    assert instances.begin("another") == 3
    assert instances.numbers() == [1, 2, 3]


def test_what_was_committed_before_there_were_instances_is_gone_on_from(
    checkpoints: CheckpointStore, storage: Storage
):
    old = f"trainings/{checkpoints._key}/"
    for update in (3, 6):
        tensors = f"old {update}".encode()
        storage.put(f"{old}{update:08d}.safetensors", tensors)
        document = {**facts(update).document(), "sha256": layout.sha256(tensors)}
        storage.put(f"{old}{update:08d}.json", json.dumps(document).encode())
    said = checkpoints.facts()
    assert said is not None
    assert said.update == 6
    storage.put(f"{old}00000006.safetensors", b"damaged")
    found = checkpoints.latest()
    assert found is not None
    assert found.tensors == b"old 3"
    checkpoints.save(checkpoint(b"new", 9))
    assert checkpoints.finished() == checkpoint(b"new", 9, attempt=1)


def test_clear_forgets(checkpoints: CheckpointStore):
    checkpoints.save(checkpoint(b"w", 3))
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
    from pipeline.data.sources.archives import members

    assert list(members(tmp_path / "one")) == [("a/c", b"a/c"), ("b", b"b")]


def test_an_empty_prefix_is_told(storage: Storage, tmp_path):
    with pytest.raises(StorageError, match="no object lies under this prefix"):
        fetch_address(f"s3://{storage.bucket}/nothing/", tmp_path / "x")


def test_a_server_whose_bytes_trickle_is_given_up(
    monkeypatch: pytest.MonkeyPatch, storage: Storage
):
    """Each read comes in time; the whole never would."""
    done = threading.Event()

    def trickle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while not done.wait(0.05):
            request.wfile.write(b"x")
            request.wfile.flush()

    monkeypatch.setattr(objects, "LONGEST_S", 0.5)
    with answering(monkeypatch, trickle):
        try:
            with pytest.raises(StorageError, match="get did not finish within"):
                Storage().get("some/key")
        finally:
            done.set()


def test_an_error_of_the_server_is_tried_again_even_if_it_has_a_checksum(
    monkeypatch: pytest.MonkeyPatch, storage: Storage
):
    """rclone's answer to who reads what another writes: 500, with the headers of the object."""
    asked: list[str] = []

    def fail_once(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_response(500 if len(asked) == 1 else 200)
        request.send_header("x-amz-checksum-crc32", "AAAAAA==")
        request.send_header("Content-Length", "4")
        request.end_headers()
        request.wfile.write(b"here")

    with answering(monkeypatch, fail_once):
        assert Storage().get("some/key") == b"here"
    assert len(asked) == 2


def test_a_forked_process_has_connections_of_its_own(storage: Storage):
    """A loader's process read what its parent had asked for: the checksum of a shard said so."""
    contents = {f"forked/{number}": bytes([number]) * 2_000_000 for number in range(8)}
    for key, content in contents.items():
        storage.put(key, content)

    def read_all() -> None:
        mine = Storage()
        assert all(mine.get(key) == content for key, content in contents.items() for _ in range(3))

    children = [multiprocessing.get_context("fork").Process(target=read_all) for _ in range(3)]
    for child in children:
        child.start()
    read_all()
    for child in children:
        child.join(pace.hangs_after_s(60))
    assert [child.exitcode for child in children] == [0, 0, 0]
