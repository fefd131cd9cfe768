"""What is recorded as the commit of a result."""

import subprocess
from pathlib import Path

import pytest

from pipeline import git
from tests.conftest import copy_study, write_params


def put_study(name: str) -> subprocess.CompletedProcess[str]:
    put = ["bash", "infra/local/put-study.sh", name]
    return subprocess.run(put, capture_output=True, text=True, check=False)


def test_a_ready_made_study_is_no_difference_and_an_edit_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study = copy_study(tmp_path / "study")
    monkeypatch.chdir(study)
    clean = git.commit()
    assert len(clean) == 40
    own = (study / "params.yaml").read_text()
    refused = put_study("shortcuts")
    assert refused.returncode == 2
    assert "params.yaml is a study of your own, 'tiny': 'make study' runs it" in refused.stderr
    assert (study / "params.yaml").read_text() == own
    (study / "params.yaml").unlink()
    for _ in range(2):  # `make params`, and again
        assert put_study("shortcuts").returncode == 0
        assert "shortcuts" in (study / "params.yaml").read_text()
        assert git.commit() == clean
    write_params(study, {"study": "mine"})
    assert git.commit() == f"{clean}-dirty"
    subprocess.run(["git", "checkout", "-q", "params.yaml"], check=True)
    (study / "dvc.yaml").write_text("stages: {}")
    assert git.commit() == f"{clean}-dirty"


def test_without_git_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert git.commit() == "unknown"
    monkeypatch.setenv("PATH", "/nowhere")
    assert git.commit() == "unknown"
