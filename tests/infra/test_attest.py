"""`make attest`: what computes the same is told from what does not, by training with both."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from infra import attest
from pipeline.errors import StudyError
from pipeline.models.predict import device
from pipeline.params import (
    Augmentation,
    CifarNetwork,
    Extra,
    ImageNetNetwork,
    Network,
    Precision,
    Shortcut,
)
from pipeline.training.schedule import Schedule
from pipeline.training.schedules.warming import WarmUp
from tests.conftest import REPO, run_in


def kinds(union: object, field: str) -> set[str]:
    """Returns the names of the kinds of a union."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields[field].annotation)[0] for member in members}


def test_the_golden_set_has_every_kind():
    rows = [recipe["row"] for recipe in attest.recipes().values()]
    plans = [recipe["schedule"] for recipe in attest.recipes().values()]
    networks = [row["network"] for row in rows]
    assert {n["family"] for n in networks} == kinds(Network, "family")
    assert {row["augmentation"]["kind"] for row in rows} == kinds(Augmentation, "kind")
    extras = [extra["kind"] for row in rows for extra in row.get("extras", [])]
    assert set(extras) == kinds(Extra, "kind")
    assert {plan["shape"] for plan in plans} == kinds(Schedule, "shape")
    warm_ups = {plan["warmup"]["kind"] for plan in plans if plan["warmup"]}
    assert warm_ups == kinds(WarmUp, "kind")
    blocks = {
        block
        for network in (CifarNetwork, ImageNetNetwork)
        for block in get_args(network.model_fields["block"].annotation)
    }
    assert {n["block"] for n in networks if "block" in n} == blocks
    assert {n["shortcut"] for n in networks if "block" in n} == set(get_args(Shortcut))
    # tf32 is a GPU's
    assert {row["precision"] for row in rows} == set(get_args(Precision)) - {"tf32"}
    assert {row["workers"] for row in rows} == {1, 2}
    for name in attest.ROW:  # every key of a row has another value somewhere
        if name != "schedule":
            assert len({json.dumps(row[name]) for row in rows}) > 1, name


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the source, its attested ones a chain of their own that nobody has committed."""
    clone = tmp_path_factory.mktemp("beginning")
    for folder in ("pipeline", "infra"):
        shutil.copytree(REPO / folder, clone / folder)
    for path in (clone / "pipeline/attested").glob("*.json"):
        path.unlink()
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    assert attested(clone, "begin()").returncode == 0
    return clone


@pytest.fixture
def begun(tmp_path: Path, beginning: Path) -> Path:
    """That repository, for one test."""
    return shutil.copytree(beginning, tmp_path / "clone")


@pytest.fixture
def clone(begun: Path) -> Path:
    """That repository, committed."""
    commit(begun)
    return begun


def commit(clone: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", "add", "-A"], cwd=clone, check=True)
    subprocess.run([*git, "commit", "-qm", "source"], cwd=clone, check=True)


def attested(clone: Path, *calls: str) -> subprocess.CompletedProcess[str]:
    """Prints a run key by a repository's source, then calls what is asked of its `infra.attest`."""
    kind = device().type  # else each of these processes would import torch for it
    code = (
        "import sys, types\n"
        "sys.modules['pipeline.models.predict'] = types.SimpleNamespace(\n"
        f"  device=lambda: types.SimpleNamespace(type={kind!r}))\n"
        "from infra import attest as a\n"
        "from pipeline.params import Row\n"
        "from pipeline.training.schedules.cosine import CosineSchedule as C\n"
        "from pipeline.training.identity import run_key\n"
        "key = run_key('n', Row(**{**Row.NEUTRAL, **a.ROW}), C(**a.schedule()), 'd')[0]\n"
        "print('key', key, flush=True)\n"
        "def some(*names): return {n: r for n, r in a.recipes().items() if n in names}\n"
        "every = a.combinations\n"
        "a.combinations = lambda: (c for c in every() if a.kinds_of(c) <= {'family cifar',\n"
        "  'augmentation pad_crop', 'schedule cosine', 'schedule step'})\n"
    ) + "\n".join(f"a.{call}" for call in calls)
    return run_in(clone, "python", "-c", code)


def key_by(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.split()[1]


def replace(clone: Path, file: str, old: str, new: str) -> None:
    path = clone / "pipeline" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


SOME = "attest(some('steps', 'cosine'))"


@pytest.mark.slow
def test_a_renamed_function_keeps_the_keys_and_another_constant_does_not(clone: Path):
    before = key_by(attested(clone))
    replace(clone, "training/loop.py", "_last_good", "_last_good_one")
    done = attested(clone, "require_attested()")
    assert done.returncode != 0 and key_by(done) != before
    done = attested(clone, SOME)
    assert "2 recipes end with the same bits as" in done.stdout, done.stderr
    done = attested(clone, "require_attested()")
    assert done.returncode == 0 and key_by(done) == before
    commit(clone)

    replace(clone, "training/loop.py", "_last_good_one", "_last_good")  # as it was before
    done = attested(clone, SOME, "begin()")
    assert done.stdout.count("attested already") == 2, done.stdout + done.stderr
    assert key_by(done) == before

    replace(clone, "training/schedules/cosine.py", "math.cos(math.pi", "math.cos(3.14")
    done = attested(clone, SOME)
    assert "1 of 2 recipes" in done.stderr, done.stderr
    assert "cosine: weights and history" in done.stderr
    assert key_by(attested(clone)) != before


def test_a_kind_that_no_compared_recipe_has_is_not_called_equal():
    golden = attest.recipes()
    attest.require_compared(list(attest.combinations()), list(golden.values()))
    some = [one for one in golden.values() if one["schedule"]["shape"] != "step"]
    some = [one for one in some if not one["row"].get("extras")]
    missing = ", ".join(
        [*(f"extra {kind}" for kind in sorted(kinds(Extra, "kind"))), "schedule step"]
    )
    with pytest.raises(StudyError, match=f"has {missing}: it cannot"):
        attest.require_compared(list(attest.combinations()), some)


def test_another_kind_of_device_goes_on_from_what_was_attested_on_it(clone: Path):
    folder = clone / "pipeline/attested"
    (begun,) = folder.glob("*.json")
    said = json.loads(begun.read_text())
    first = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=clone, text=True).strip()
    (folder / "on-a-gpu.json").write_text(json.dumps({**said, "device": "cuda"}))
    commit(clone)
    second = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=clone, text=True).strip()
    done = attested(
        clone, "sys.stdout.write(a.last_attested('cpu') + ' ' + a.last_attested('cuda'))"
    )
    assert done.stdout.split()[2:] == [first, second], done.stderr


@pytest.mark.slow
def test_source_that_was_changed_after_it_was_attested_is_refused(begun: Path):
    replace(begun, "training/loop.py", "_last_good", "_last")
    commit(begun)
    replace(begun, "training/loop.py", "_last", "_good")
    done = attested(begun, SOME)
    assert "is not what was attested there" in done.stderr
