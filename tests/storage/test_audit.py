"""What is damaged, missing or orphaned on S3 is found and named, and nothing else."""

import hashlib
import json
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage import audit
from pipeline.storage.audit import Audit, Fault, dvc_key
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import (
    DATA_SETS,
    EVALUATIONS,
    SEARCHES,
    SHARDS,
    TRAININGS,
    TRIALS,
    Instance,
    Instances,
    project,
)
from pipeline.storage.objects import Storage
from tests.checkpoints import checkpoint

ROUND = 15  # damages at once, each in an instance of its own


@pytest.fixture
def bucket(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A bucket of its own, so that what other tests have damaged is not found."""
    monkeypatch.setattr(audit, "WRITING_S", 0.0)
    own = Storage(f"audit-{uuid.uuid4().hex[:12]}", at=storage.place)
    own.ensure_bucket()
    return own


def put_dvc(bucket: Storage, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content).hexdigest() + suffix
    bucket.put(f"{project()}/{dvc_key(md5)}", content)
    return md5


def filled(bucket: Storage) -> dict[str, str]:
    """Puts some of every kind into the bucket; returns the sha256 of MLflow's artifacts."""
    copies = {}
    for number in range(3):
        Instances(bucket, TRAININGS, f"{TRAININGS}{number}").begin("the first")
        for kind in (TRAININGS, TRIALS):
            for _ in range(2):  # attempts
                instance = 2 if kind == TRIALS else 1  # a trial has that of its search
                store = CheckpointStore(bucket, f"{kind}{number}", kind=kind, instance=instance)
                for update in (10, 20, 30):
                    store.save(checkpoint(f"weights {kind} {number} {update}".encode(), update))
        Instances(bucket, TRAININGS, f"{TRAININGS}{number}").begin("again")
        CheckpointStore(bucket, f"{TRAININGS}{number}").save(checkpoint(b"others", 10))
        facts = {"trials": [f"{TRIALS}{number}"], "done": True}
        for again in ("the first", "again"):
            Instances(bucket, SEARCHES, f"search{number}").begin(again)
        Instance(bucket, SEARCHES, f"search{number}", 2).put("search", facts, {})
        for kind, names in (
            (DATA_SETS, ("prepared",)), (SHARDS, ("train-0", "train-1")),
            (EVALUATIONS, ("network", "tables")),
        ):  # fmt: skip
            for name in names:
                contents = {part: f"{kind} {name} {part} {number}".encode() for part in "ab"}
                Instance(bucket, kind, f"{kind}{number}").put(name, {}, contents)
        files = [
            {"md5": put_dvc(bucket, f"{name} {number}".encode()), "relpath": name} for name in "xy"
        ]
        put_dvc(bucket, json.dumps(files).encode(), ".dir")
        copies[f"mlflow/run{number}/artifacts/model.json"] = hashlib.sha256(b"model").hexdigest()
        bucket.put(f"mlflow/run{number}/artifacts/model.json", b"model")
    return copies


def test_what_is_whole_has_no_fault_and_each_byte_is_read_once(bucket: Storage):
    copies, read = filled(bucket), list[int]()
    found = Audit(bucket, copies)
    assert found.faults(read.append) == []
    sizes = [one.bytes for one in bucket.listing("").values()]
    assert sum(read) == found.bytes == sum(sizes)


def test_dvcs_run_cache_is_no_instance_of_ours(bucket: Storage):
    bucket.put(f"{project()}/dvc/runs/12/{64 * '0'}/{64 * '1'}", b"what a stage was run with")
    assert Audit(bucket, {}).faults(lambda count: None) == []


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def damage(bucket: Storage, chance: random.Random, keys: list[str]) -> list[str]:
    """Damages one or two objects; returns their keys."""
    key = chance.choice(keys)
    content = bucket.get(key)
    assert content
    how = chance.choice(("flip", "truncate", "delete", "swap"))
    if how == "flip":
        bucket.put(key, flipped(content, chance))
    elif how == "truncate":
        bucket.put(key, content[: chance.randrange(len(content))])
    elif how == "delete":
        bucket.delete(key)
    else:
        other = chance.choice([one for one in keys if bucket.get(one) != content])
        bucket.put(key, bucket.get(other) or b"")
        bucket.put(other, content)
        return [key, other]
    return [key]


def place_of(key: str) -> str:
    """What is judged together: an instance, else the object itself."""
    parts = key.split("/")
    return "/".join(parts[:4]) if len(parts) > 4 and parts[3].isdecimal() else key


def explains(fault: Fault, key: str) -> bool:
    """Whether a fault tells of damage to an object: it names it, or what it alone had named."""
    if place_of(fault.key) == place_of(key):
        return True
    searched = "/searches/" in key and "/trials/" in fault.key
    return searched and fault.kind == "orphaned"


def is_named(key: str) -> bool:
    """Whether its deletion can be seen: nothing names the first request, a folder of DVC's or no trial's search."""
    return not (key.endswith("/1/begun.json") or key.endswith(".dir"))


@pytest.mark.parametrize("rounds, seed", [(2, 0), pytest.param(20, 1, marks=pytest.mark.trial)])
def test_every_random_damage_is_found_and_no_other(bucket: Storage, rounds: int, seed: int):
    chance, copies = random.Random(seed), filled(bucket)
    with ThreadPoolExecutor(4) as pool:
        keys = bucket.keys("")
        whole = dict(zip(keys, pool.map(bucket.get, keys), strict=True))
    for _ in range(rounds):
        left = [key for key in keys if is_named(key)]
        damaged: list[str] = []
        while len(damaged) < ROUND and left:
            some = damage(bucket, chance, left)
            damaged += some
            around = {place_of(key) for key in some}
            left = [key for key in left if place_of(key) not in around]
        faults = Audit(bucket, copies).faults(lambda _: None)
        missed = [key for key in damaged if not any(explains(fault, key) for fault in faults)]
        assert missed == []
        assert [fault for fault in faults if not any(explains(fault, key) for key in damaged)] == []
        for key in damaged:
            bucket.put(key, whole[key] or b"")
    assert Audit(bucket, copies).faults(lambda _: None) == []


def test_a_damaged_weight_hides_neither_an_orphan_beside_it_nor_that_its_search_is_gone(
    bucket: Storage,
):
    copies = filled(bucket)
    trial = Instance(bucket, TRIALS, f"{TRIALS}1", 2)
    manifests = [key for key in bucket.keys(trial.prefix) if "/manifests/" in key]
    weights = next(key for key in bucket.keys(trial.prefix) if "/objects/" in key)
    orphan = trial.put_object(b"of nobody")
    bucket.put(weights, b"?")
    bucket.delete(f"{project()}/{SEARCHES}/search1/2/manifests/search.json")
    found = {(one.key, one.kind) for one in Audit(bucket, copies).faults(lambda _: None)}
    assert found == {
        (weights, "damaged"),
        (trial.object_key(orphan), "orphaned"),
        *((key, "orphaned") for key in manifests),
    }


@pytest.mark.parametrize(
    "stray", [f"{TRIALS}/stray", f"{TRIALS}/a/objects/b", f"a/b/c/objects/{'0' * 64}"]
)
def test_what_belongs_nowhere_is_named_once(bucket: Storage, stray: str):
    copies, key = filled(bucket), f"{project()}/{stray}"
    bucket.put(key, b"of nobody")
    (found,) = Audit(bucket, copies).faults(lambda _: None)
    assert (found.key, found.kind, found.why) == (key, "damaged", "no such object belongs here")


def test_what_is_written_meanwhile_is_no_fault(bucket: Storage, monkeypatch: pytest.MonkeyPatch):
    there = Instance(bucket, TRAININGS, "key")
    digest = there.put_object(b"weights")

    def wait(_: float) -> None:
        there.put_manifest("1", {}, {"tensors": digest})

    monkeypatch.setattr("pipeline.storage.audit.time.sleep", wait)
    assert Audit(bucket, {}).faults(lambda _: None) == []


def test_whose_writer_tries_again_and_again_is_no_fault_while_it_is_young(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch
):
    instance = Instance(bucket, SHARDS, "packed")
    instance.put("train-0", {}, {"shard": b"1"})
    (manifest,) = (key for key in bucket.keys(f"{project()}/") if "/manifests/" in key)
    content = bucket.get(manifest)
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            bucket.put(manifest, content)

    monkeypatch.setattr("pipeline.storage.audit.time.sleep", sleep)
    bucket.delete(manifest)
    assert Audit(bucket, {}).faults(lambda _: None) == []
    assert len(looks) == 3
    bucket.delete(manifest)
    monkeypatch.setattr(audit, "YOUNG_S", -1e9)
    assert [fault.kind for fault in Audit(bucket, {}).faults(lambda _: None)] == ["orphaned"]
    assert len(looks) == 4


def test_a_fault_that_others_name_meanwhile_is_still_one(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch
):
    there = Instance(bucket, SHARDS, "key")
    there.put("m", {}, {"a": b"content"})
    digest = hashlib.sha256(b"content").hexdigest()
    bucket.delete(there.object_key(digest))
    monkeypatch.setattr(
        "pipeline.storage.audit.time.sleep", lambda _: there.put_manifest("n", {}, {"a": digest})
    )
    (fault,) = Audit(bucket, {}).faults(lambda _: None)
    assert (fault.key, fault.kind) == (there.object_key(digest), "missing")


CHANGES: dict[str, tuple[Callable[[Instance], None], str, str]] = {
    "object deleted": (lambda i: i.storage.delete(i.object_key(i.manifest("m")[1]["a"])), "missing", "objects/"),
    "manifest deleted": (lambda i: i.storage.delete(i.manifest_key("m")), "orphaned", "objects/"),
    "stray": (lambda i: i.storage.put(f"{i.prefix}objects/{'0' * 64}", b""), "damaged", "objects/"),
    "stray document": (
        lambda i: i.storage.put(f"{i.prefix}attempts/000001.json.bak", b"{}"), "damaged", "attempts/"
    ),
    "copied manifest": (
        lambda i: i.storage.put(i.manifest_key("n"), i.storage.get(i.manifest_key("m")) or b""),
        "damaged", "manifests/n.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_fault_says_what_it_is(bucket: Storage, name: str):
    change, kind, where = CHANGES[name]
    there = Instance(bucket, SHARDS, "key")
    there.put("m", {}, {"a": b"content"})
    change(there)
    found = Audit(bucket, {}).faults(lambda _: None)
    assert [fault.kind for fault in found][:1] == [kind]
    assert where in found[0].key
