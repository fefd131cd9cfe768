"""The workflows for GitHub: nothing in them executes what a pull request says, and their commands exist."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.commands import summary
from tests.conftest import REPO

FILES = sorted((REPO / ".github/workflows").glob("*.yaml"))
# what GitHub itself gives, and nobody writes
SAFE = {
    "github.event.pull_request.base.sha", "github.event.workflow_run.id", "github.token",
}  # fmt: skip


def steps(path: Path) -> list[dict[str, Any]]:
    document = YAML(typ="safe", pure=True).load(path.read_text())
    return [step for job in document["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_command_contains_what_a_pull_request_says(path: Path):
    for step in steps(path):
        code = step.get("run", "") + step.get("with", {}).get("script", "")
        assert "${{" not in code
    assert set(re.findall(r"\$\{\{\s*([^}\s]+)\s*\}\}", path.read_text())) <= SAFE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_who_runs_a_pull_requests_code_may_write_nothing(path: Path):
    document = YAML(typ="safe", pure=True).load(path.read_text())
    runs_its_code = any("checkout" in step.get("uses", "") for step in steps(path))
    writes = any(right == "write" for right in document["permissions"].values())
    assert not (runs_its_code and writes)
    assert "pull_request_target" not in path.read_text()


def test_a_study_that_fails_is_told_too(tmp_path: Path):
    study, comment = (
        REPO / f".github/workflows/{name}.yaml" for name in ("study", "study-comment")
    )
    *_, failed, upload, _, gate = steps(study)
    assert (failed["if"], upload["if"], upload["with"]["name"]) == (
        "failure()",
        "always()",
        "comment",
    )
    said = {"GITHUB_SERVER_URL": "https://x", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}
    subprocess.run(
        ["bash", "-ec", failed["run"]], cwd=tmp_path, env={**os.environ, **said}, check=True
    )
    assert (
        (tmp_path / upload["with"]["path"]).read_text().endswith("https://x/a/b/actions/runs/7\n")
    )
    assert '"success", "failure"' in comment.read_text()
    assert gate["run"] == "make verify"


def test_its_make_targets_exist():
    makefile = (REPO / "Makefile").read_text()
    commands = [step["run"] for path in FILES for step in steps(path) if "run" in step]
    targets = re.findall(r"\bmake (\w+)", "\n".join(commands))
    assert targets and all(f"\n{target}:" in makefile for target in targets)


def test_the_summary_has_all_verdicts_and_no_markup_of_a_studys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(REPO)
    summary.main()
    said = capsys.readouterr().out
    verdicts = json.loads(paths.REPORT.read_text())["verdicts"]
    lines = [line for line in said.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        one["verdict"] for one in verdicts
    ]
    assert len(verdicts) > 10
    assert summary.escaped("a|b @all <img> [x](y) `c`") == (
        "a&#124;b &#64;all &#60;img&#62; &#91;x&#93;&#40;y&#41; &#96;c&#96;"
    )
