"""`make gc` deletes what nobody needs, and nothing else."""

import hashlib
import json
import subprocess
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from zc.lockfile import LockFile

from infra.local import s3
from pipeline import params, paths
from pipeline.checkpoint import Checkpoint
from pipeline.commands import forget, gc
from pipeline.errors import BusyError, ParamsError, ResourceError, StorageError
from pipeline.execution import clones
from pipeline.execution.begun import lock_of
from pipeline.storage.audit import dvc_key
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.layout import (
    DATA_SETS,
    MEASURING,
    SEARCHES,
    SHARDS,
    TRAININGS,
    TRIALS,
    Instance,
    project,
)
from pipeline.storage.objects import Storage
from pipeline.training.identity import what_is_trained
from pipeline.training.schedule import load_schedule
from tests.checkpoints import checkpoint
from tests.conftest import REPO

USED = "0123456789abcdef01234567"  # a key


@pytest.fixture
def bucket(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Storage:
    """A bucket and a state folder of its own."""
    monkeypatch.setattr("pipeline.execution.clones.state_dir", lambda: tmp_path / "state")
    monkeypatch.setattr("pipeline.execution.begun.state_dir", lambda: tmp_path / "state")
    own = Storage(f"gc-{uuid.uuid4().hex[:12]}", at=storage.place)
    own.ensure_bucket()
    monkeypatch.setattr(s3, "connect", lambda: own)
    return own


def git(clone: Path, *arguments: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(clone), *named, *arguments], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty clone, in which this process runs."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "commit", "--allow-empty", "--quiet", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def trained(clone: Path, key: str, instance: int = 1, row: str = "row") -> None:
    """Leaves a clone with the result of a training."""
    path = clone / paths.run(row) / paths.FACTS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run_key": key, "instance": instance}))


def commit(clone: Path) -> None:
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "-m", "more")


def put_trainings(bucket: Storage, *keys: str, update: int = 9, collected: bool = True) -> None:
    """Stores trainings that are at an update, of 9."""
    for key in keys:
        name, _, instance = key.partition("/")
        store = CheckpointStore(bucket, name, instance=int(instance or 1))
        store.save(checkpoint(b"weights", update))
        if collected:
            store.instance.note_collected()


def put_search(bucket: Storage, key: str, trial: str, *, done: bool = True) -> None:
    """Stores a search of one trial, which was collected if it is done."""
    found = Instance(bucket, SEARCHES, key)
    found.put("search", {"trials": [trial], "done": done}, {})
    if done:
        found.note_collected()
    CheckpointStore(bucket, trial, kind=TRIALS).save(checkpoint(b"a", 9))


def names(bucket: Storage, days: float = 0.0) -> list[str]:
    return [part.name for part in gc.useless(bucket, days)[0]]


def test_what_a_branch_a_tag_a_stash_or_a_folder_names_is_kept(bucket: Storage, clone: Path):
    put_trainings(
        bucket, "main", "branch", "tag", "stash", "new", "folder", "old", "again/1", "again/2"
    )
    trained(clone, "main")
    commit(clone)
    for name in ("branch", "tag"):
        git(clone, "checkout", "--quiet", "-B", "other", "main")
        trained(clone, name)
        commit(clone)
        git(clone, name, *(["-f"] if name == "branch" else []), f"the-{name}")
    git(clone, "checkout", "--quiet", "-B", "other", "main")
    trained(clone, "stash")
    git(clone, "stash")
    trained(clone, "new", row="untracked")
    git(clone, "stash", "--include-untracked")
    blob = clone / "a-file"
    blob.write_text("text")
    git(clone, "add", "a-file")
    git(clone, "tag", "of-a-file", ":a-file")
    trained(clone, "again", 2)
    commit(clone)
    trained(clone, "folder")
    assert names(bucket) == ["trainings/again/1", "trainings/old/1"]
    assert names(bucket, days=1) == []  # all was written just now


def test_what_a_killed_plan_measured_with_is_not_waited_for_and_can_be_forgotten(
    bucket: Storage, clone: Path, capsys: pytest.CaptureFixture[str]
):
    key = f"{MEASURING}01234567"
    put_trainings(bucket, key, update=3, collected=False)
    assert gc.useless(bucket, 0.0)[1] == {} and names(bucket) == [f"trainings/{key}/1"]
    forget.main(key)
    assert names(bucket) == [] and "objects deleted" in capsys.readouterr().out


def test_another_clone_of_the_user_needs_what_it_names(
    bucket: Storage, clone: Path, tmp_path: Path
):
    put_trainings(bucket, "other", "pushed", "old")
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", str(clone), str(other)], check=True)
    trained(other, "other")
    assert names(bucket) == [f"trainings/{key}/1" for key in ("old", "other", "pushed")]
    clones.note(other)
    assert names(bucket) == ["trainings/old/1", "trainings/pushed/1"]
    colleagues = tmp_path / "colleague"
    subprocess.run(["git", "clone", "--quiet", str(clone), str(colleagues)], check=True)
    git(clone, "remote", "add", "origin", "-t", "main", str(colleagues))  # one branch alone
    git(colleagues, "checkout", "--quiet", "-b", "theirs")
    trained(colleagues, "pushed")
    commit(colleagues)
    gc.main("apply=1", "days=0")  # fetches what the colleague has pushed
    assert sorted(bucket.folders(f"{project()}/{TRAININGS}/")) == ["other", "pushed"]


def test_files_of_dvc_data_searches_and_shards_are_kept_with_what_they_consist_of(
    bucket: Storage, clone: Path
):
    def put(content: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(content).hexdigest() + suffix
        bucket.put(f"{project()}/{dvc_key(md5)}", content)
        return md5

    inside, alone, useless = put(b"inside"), put(b"alone"), put(b"useless")
    folder = put(json.dumps([{"md5": inside, "relpath": "a"}]).encode(), ".dir")
    outs = "".join(f"    - {{path: p{md5[:4]}, md5: {md5}}}\n" for md5 in (folder, alone))
    (clone / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  a:\n    outs:\n{outs}")
    for path in (paths.DIGEST, paths.REPORT):
        (clone / path).parent.mkdir()
    (clone / paths.DIGEST).write_text(json.dumps({"digest": USED, "shards": {"key": "packed"}}))
    (clone / paths.REPORT).write_text(json.dumps({"searches": [{"trials": [{"search": USED}]}]}))
    for key in (USED, "left"):
        put_search(bucket, key, f"trial of {key}")
        Instance(bucket, DATA_SETS, key).put("prepared", {}, {"prepared": b"1"})
    for key in ("packed", "left"):
        Instance(bucket, SHARDS, key).put("train-0", {}, {"shard": b"1"})
    commit(clone)
    assert names(bucket) == [
        dvc_key(useless), "searches/left/1", "sets/left/1", "shards/left/1", "trials/trial of left/1",
    ]  # fmt: skip


def test_a_damaged_list_of_files_stops_it(bucket: Storage, clone: Path):
    """What it names cannot be told: all of that would be deleted."""
    content = json.dumps([{"md5": hashlib.md5(b"inside").hexdigest(), "relpath": "a"}]).encode()
    folder = f"{hashlib.md5(content).hexdigest()}.dir"
    bucket.put(f"{project()}/{dvc_key(folder)}", b"[]")
    outs = f"    - {{path: p, md5: {folder}}}\n"
    (clone / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  a:\n    outs:\n{outs}")
    commit(clone)
    with pytest.raises(StorageError, match="damaged, so what it names cannot be told"):
        gc.main("apply=1", "days=0")


def test_what_is_not_at_its_end_is_kept(bucket: Storage, clone: Path):
    """It may be of other code, or wait for its owner: `make forget` deletes it."""
    put_trainings(bucket, "half", update=5)
    put_search(bucket, USED, "trial", done=False)
    put_trainings(bucket, "whole")
    found, waits = gc.useless(bucket, 0.0)
    assert [part.name for part in found] == ["trainings/whole/1"]
    assert waits == {
        f"searches/{USED}/1": "a search that is not at its end",
        "trainings/half/1": "net, at update 5 of 9",
    }
    assert next(gc.lines(found, {"trainings/half/1": "net, at update 5 of 9"})) == (
        "kept: trainings/half/1: net, at update 5 of 9: if nobody wants it, `make forget RUN=half` deletes it"
    )


def test_what_nobody_has_collected_is_kept_with_its_data(
    bucket: Storage, clone: Path, monkeypatch: pytest.MonkeyPatch
):
    """A study that a cluster has computed for a clone on another host, whose owner is away for weeks."""
    put_trainings(bucket, "finished", collected=False)
    Instance(bucket, DATA_SETS, "digest").put("prepared", {}, {"prepared": b"1"})
    Instance(bucket, SHARDS, "packed").put("train-0", {}, {"shard": b"1"})
    Instance(bucket, SEARCHES, USED).put("search", {"trials": ["trial"], "done": True}, {})
    CheckpointStore(bucket, "trial", kind=TRIALS).save(checkpoint(b"a", 9))
    assert names(bucket) == ["shards/packed/1"]  # it is not of photographs
    assert gc.useless(bucket, 0.0)[1] == {
        f"searches/{USED}/1": "a search that nobody has collected",
        "trainings/finished/1": "net, not collected",
    }
    store = CheckpointStore(bucket, "photographs", instance=1)
    row = params.load(REPO / "studies/imagenet.yaml").models["resnet-18"]
    recipe = what_is_trained(row, load_schedule(REPO / row.schedule), "digest")
    of_photographs = replace(checkpoint(b"weights", 9).facts, trained=recipe)
    store.save(Checkpoint(b"weights", of_photographs))
    assert names(bucket) == []
    monkeypatch.setattr(gc, "NOTED_SINCE", 4e9)  # what was written before does not tell
    assert len(names(bucket)) == 6


def test_what_dvc_writes_is_waited_for(
    bucket: Storage, clone: Path, monkeypatch: pytest.MonkeyPatch
):
    """Half a dvc.lock may be whole YAML that names less."""
    monkeypatch.setattr("pipeline.files.LOCK_TIMEOUT_S", 0.1)
    place = clone / ".dvc/tmp"
    place.mkdir(parents=True)
    with (
        closing(LockFile(str(place / "lock"))),
        pytest.raises(BusyError, match=f"DVC in {clone} is already"),
    ):
        names(bucket)
    assert names(bucket) == []


def test_shards_are_kept_if_an_earlier_version_did_not_note_their_key(bucket: Storage, clone: Path):
    Instance(bucket, SHARDS, "packed").put("train-0", {}, {"shard": b"1"})
    assert names(bucket) == ["shards/packed/1"]
    (clone / paths.DIGEST).parent.mkdir()
    (clone / paths.DIGEST).write_text(json.dumps({"digest": USED, "shards": {"count": 1}}))
    assert names(bucket) == []


def test_nothing_is_deleted_if_a_clone_is_not_there(
    bucket: Storage, clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    put_trainings(bucket, "old")
    away = tmp_path / "on a disk that is not mounted"
    (away / ".git").mkdir(parents=True)
    clones.note(away)
    away.rename(tmp_path / "away")
    gc.main("apply=", "days=0")
    assert "was a clone and is not there" in capsys.readouterr().err
    with pytest.raises(ResourceError, match=r"not mounted.*delete .*clones"):
        gc.main("apply=1", "days=0")
    assert bucket.keys("")


def test_what_was_written_since_it_was_listed_is_kept(bucket: Storage, clone: Path):
    put_trainings(bucket, "old")
    ((part,), _) = gc.useless(bucket, 0.0)
    part.modified -= 1  # as if its last object had come since
    assert gc.delete(part, bucket) == 0
    assert bucket.keys("")


def test_a_search_that_a_process_works_on_keeps_its_trials(bucket: Storage, clone: Path):
    put_search(bucket, USED, "trial")
    lock_of("").mkdir(parents=True)
    with FileLock(lock_of(USED)):
        assert names(bucket) == []
    assert names(bucket) == [f"searches/{USED}/1", "trials/trial/1"]


def test_what_a_process_works_on_is_kept(bucket: Storage, clone: Path):
    put_trainings(bucket, "busy", "idle")
    lock_of("").mkdir(parents=True)
    lock_of("idle").touch()
    with FileLock(lock_of("busy")):
        assert names(bucket) == ["trainings/idle/1"]
    assert names(bucket) == ["trainings/busy/1", "trainings/idle/1"]


def test_it_shows_before_it_deletes(
    bucket: Storage, clone: Path, capsys: pytest.CaptureFixture[str]
):
    put_trainings(bucket, "old")
    gc.main("apply=", "days=")
    assert "less than 7 days old" in capsys.readouterr().out
    gc.main("apply=", "days=0")
    said = capsys.readouterr().out
    assert "trainings/old/1: 0.0 MB" in said and "make gc APPLY=1" in said
    assert len(bucket.keys("")) == 4
    gc.main("apply=1", "days=0")
    assert "deleted 4 objects" in capsys.readouterr().out
    assert bucket.keys("") == []


@pytest.mark.parametrize("path, content", [("dvc.lock", "a: [1"), ("data/digest.json", "{")])
def test_nothing_is_deleted_if_what_somebody_needs_is_unknown(
    bucket: Storage, clone: Path, path: str, content: str
):
    put_trainings(bucket, "old")
    (clone / path).parent.mkdir(exist_ok=True)
    (clone / path).write_text(content)
    commit(clone)
    with pytest.raises(ResourceError, match=path):
        gc.main("apply=1", "days=0")
    git(clone, "rm", "--quiet", path)
    commit(clone)
    git(clone, "remote", "add", "origin", "/nowhere")
    with pytest.raises(ResourceError, match="fetch"):
        gc.main("apply=1", "days=0")
    assert len(bucket.keys("")) == 4


@pytest.mark.parametrize("apply", ["0", "no", "true"])
def test_only_1_deletes(bucket: Storage, clone: Path, apply: str):
    with pytest.raises(ParamsError, match="APPLY: found"):
        gc.main(f"apply={apply}", "days=0")


def test_days_that_are_no_number_are_refused(bucket: Storage, clone: Path):
    with pytest.raises(ParamsError, match="DAYS: found 'week'"):
        gc.main("apply=1", "days=week")
