"""`make study` goes on after DVC was killed at any moment, and make takes nothing but what a user says."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.local.make_study import delete_torn_rwlock, set_torn_lock_aside
from tests.conftest import REPO


def test_a_lock_that_was_cut_off_is_set_aside_and_a_whole_one_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = (REPO / "dvc.lock").read_bytes()
    lock, torn = tmp_path / "dvc.lock", tmp_path / "dvc.lock.torn"
    set_torn_lock_aside(lock)  # none is there
    lock.write_bytes(whole)
    set_torn_lock_aside(lock)
    assert lock.read_bytes() == whole and capsys.readouterr().err == ""
    lock.write_bytes(b"<<<<<<< HEAD\n" + whole)
    set_torn_lock_aside(lock)  # Git's and DVC's words are better
    assert lock.exists() and not torn.exists()
    in_an_entry = whole.index(b"md5: ", len(whole) // 2) + 3
    in_a_parameter = whole.index(b"models.resnet-20-tuned") + 9
    for length in (0, 9, in_an_entry, in_a_parameter):
        lock.write_bytes(whole[:length])
        set_torn_lock_aside(lock)
        assert not lock.exists() and torn.read_bytes() == whole[:length]
        assert "moved to" in capsys.readouterr().err


def made(*words: str, **variables: str) -> str:
    """Returns what make would run."""
    command = ["make", "--dry-run", "--no-print-directory", *words]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_other_programs_variables_change_nothing():
    plain = made("study", "gc", "again", "verify")
    foreign = dict.fromkeys(
        (
            "PYTHONPATH",
            "PYTHONHOME",
            "STUDY",
            "DAYS",
            "APPLY",
            "RUN",
            "AGAINST",
            "NAME",
            "FROM",
            "BEGIN",
        ),
        "9",
    )
    assert made("study", "gc", "again", "verify", **foreign) == plain


def test_what_a_user_says_is_one_word():
    said = made(
        "verify",
        "plan",
        "params",
        "AGAINST=/my dir/r.json",
        "SPEEDS=my rows.yaml",
        "STUDY=digits; x",
    )
    for word in ('"against=/my dir/r.json"', '"speeds=my rows.yaml"', '"digits; x"'):
        assert word in said


@pytest.mark.parametrize("content, stays", [("", False), ('{"read": {', False), ("{}", True)])
def test_a_list_of_dvcs_that_was_cut_off_is_deleted(content: str, stays: bool, tmp_path: Path):
    (tmp_path / "rwlock").write_text(content)
    delete_torn_rwlock(tmp_path / "rwlock")
    assert (tmp_path / "rwlock").exists() == stays
