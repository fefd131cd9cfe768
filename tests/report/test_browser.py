"""The report's page in headless Chromium, which npm brings: on a phone and a screen, light and dark."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import page
from pipeline.report.gathering import gather
from tests.conftest import REPO
from tests.report.studies import study_of, write_study


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the browser, and axe-core, which finds what a screen reader stumbles over."""
    folder = tmp_path_factory.mktemp("browser") / "browser"
    shutil.copytree(REPO / "tests/browser", folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


def look(browser: Path, file: Path, width: int, scheme: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "look.mjs", str(file), str(width), scheme], cwd=browser, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a made-up study, that of the photographs, and that of the digits."""
    root, study = tmp_path_factory.mktemp("study"), study_of(seeds=2)
    write_study(root, study)
    photographs = json.loads((REPO / "reference/cifar10-jpeg-gpu/report.json").read_text())
    digits = json.loads((REPO / "report/report.json").read_text())
    found = {"made-up": gather(study, root), "photographs": photographs, "digits": digits}
    for name, results in found.items():
        (root / f"{name}.html").write_text(page.render(results))
    return {name: root / f"{name}.html" for name in found}


@pytest.mark.trial
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1400])
@pytest.mark.parametrize("name", ["made-up", "photographs", "digits"])
def test_each_chart_answers_and_nothing_is_asked_of_anybody(
    browser: Path, pages: dict[str, Path], name: str, width: int, scheme: str
):
    found = look(browser, pages[name], width, scheme)
    assert found["charts"] == found["still"] > 5  # without JavaScript each is a picture
    assert found["answers"] == {"a network": True, "logarithmic curves": True, "a price": True}
    assert found["sizes"]["page"] <= found["sizes"]["window"] == width
    assert (found["violations"], found["requests"], found["console"]) == ([], [], [])
    assert found["cut"] == []  # no label lies beyond its picture
