"""The run key."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import attested
from pipeline.errors import ParamsError
from pipeline.params import Row
from pipeline.training import identity
from pipeline.training.schedules.cosine import CosineSchedule
from tests.conftest import REPO, run_in

SCHEDULE = CosineSchedule(shape="cosine", base_lr=0.1, total_updates=10, warmup=None)


def key(row: Row, schedule: CosineSchedule = SCHEDULE, digest: str = "d") -> str:
    return identity.run_key("net", row, schedule, digest)[0]


def test_all_that_determines_a_training_changes_its_key(row: Callable[..., Row]):
    keys = {
        key(row()),
        key(row(seed=2)),
        key(row(precision="bfloat16")),
        key(row(learning_rate_factor=2.0)),
        key(row(), SCHEDULE.model_copy(update={"base_lr": 0.2})),
        key(row(), digest="e"),
    }
    assert len(keys) == 6


def test_the_name_of_the_schedules_file_does_not(row: Callable[..., Row]):
    assert key(row()) == key(row(schedule="schedules/other.yaml"))


def computing_in(tree: Path) -> str:
    """Returns the digest of the source of a row with a padded crop and a cosine."""
    code = (
        "from pipeline.training import identity as i; import types as t; "
        "kind = t.SimpleNamespace(kind='pad_crop', shape='cosine'); "
        "family = t.SimpleNamespace(family='cifar'); "
        "print(i.source_of(t.SimpleNamespace(augmentation=kind, network=family, extras=[]), kind))"
    )
    done = run_in(tree, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "pipeline", tmp_path / "pipeline")
    return tmp_path


COUNTS = {
    "training/loop.py": True,
    "models/blocks.py": True,
    "data/feeding/pad_crop.py": True,
    "training/schedules/cosine.py": True,
    "models/families/cifar.py": True,
    "models/families/torchvision.py": False,
    "models/networks.py": False,
    "data/feeding/composed.py": False,
    "data/feeding/extras.py": False,
    "data/feeding/scale_crop.py": False,  # kinds that this row does not use
    "training/schedules/step.py": False,
    "data/feeding/augmentations.py": False,
    "params/row.py": False,
    "errors.py": False,
    "report/page.py": False,
    "storage/objects.py": False,
    "data/sources/listing.py": False,
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the source as it is."""
    folder = tmp_path_factory.mktemp("before")
    shutil.copytree(REPO / "pipeline", folder / "pipeline")
    return computing_in(folder)


@pytest.mark.slow
@pytest.mark.parametrize("file", COUNTS)
def test_the_source_that_computes_counts(tree: Path, before: str, file: str):
    path = tree / "pipeline" / file
    path.write_text(f"{path.read_text()}\nANOTHER = 1\n")
    assert (computing_in(tree) != before) == COUNTS[file]


def test_comments_and_empty_lines_do_not(tree: Path, before: str):
    for file in COUNTS:
        path = tree / "pipeline" / file
        path.write_text(f"# a comment\n{path.read_text()}\n\n# another\n")
    assert computing_in(tree) == before


@pytest.mark.parametrize("name", [".ipynb_checkpoints/loop-checkpoint.py", ".#loop.py", "copy.py"])
def test_what_nobody_imports_does_not(tree: Path, before: str, name: str):
    left = tree / "pipeline/training" / name
    left.parent.mkdir(exist_ok=True)
    if name.startswith(".#"):
        left.symlink_to("user@host.1234")  # as Emacs does: it points nowhere
    else:
        left.write_text("x = 1")
    assert computing_in(tree) == before


def test_an_attested_source_has_the_oldest_ones_keys(tmp_path: Path):
    for name, equals in (("1", {"a": None}), ("2", {"b": "a", "x": "y"}), ("3", {"c": "b"})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"equals": equals}))
    assert [attested.oldest(s, folder=tmp_path) for s in "abcd"] == ["a", "a", "a", "d"]


def test_what_was_shown_on_one_kind_of_device_is_not_said_of_another(tmp_path: Path):
    files: dict[str, dict[str, Any]] = {
        "1": {"equals": {"a": None}},  # a beginning, for all
        "2": {"equals": {"b": "a"}, "device": "cpu"},
        "3": {"equals": {"c": "b"}, "device": "cpu"},
        "4": {"equals": {"c": "a"}, "device": "cuda"},
    }
    for name, said in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    for device, oldest in (("cpu", "aaad"), ("cuda", "abad"), (None, "aaad")):
        assert "".join(attested.oldest(s, device, tmp_path) for s in "abcd") == oldest, device


def test_an_override_is_taken_and_told(row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(identity.CONTINUE, f"other={'b' * 24} net={'a' * 24}")
    assert identity.run_key("net", row(), SCHEDULE, "d") == ("a" * 24, True)


def test_a_malformed_override_is_refused(row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(identity.CONTINUE, "net=abc")
    with pytest.raises(ParamsError, match="24 hexadecimal"):
        key(row())
