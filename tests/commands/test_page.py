"""`make page` writes the page of a report that lies somewhere else."""

import json
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.commands import page
from pipeline.errors import DataError
from tests.conftest import REPO


@pytest.mark.slow
def test_a_reports_page_is_written_without_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(paths, "OTHER_PAGE", tmp_path / "other.html")
    page.main(str(paths.REPORT))
    written = paths.OTHER_PAGE.read_text()
    assert "As CSV" not in written  # the tables here are of this study
    assert "Search for a schedule" in written
    page.main("reference/cifar10-jpeg-gpu/report.json")
    assert "Search for a schedule" not in paths.OTHER_PAGE.read_text()  # it has none
    assert (
        "resnet-44" in written and "Deeper plain networks have a higher training error" in written
    )


@pytest.mark.slow
def test_another_rerun_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(paths, "OTHER_PAGE", tmp_path / "other.html")
    theirs = json.loads(paths.REPORT.read_text())
    for row in theirs["rows"]:
        if row["name"] in ("resnet-20", "resnet-20-s2", "resnet-20-s3"):
            row["scores"]["test_error_pct"] += 30
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    page.main("", str(tmp_path / "theirs.json"))
    written = paths.OTHER_PAGE.read_text()
    assert f"comparisons with {tmp_path}/theirs.json, 1 differ" in written
    with pytest.raises(DataError, match="nothing to compare"):
        page.main("", "reference/cifar10-jpeg-gpu/report.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}'])
def test_what_is_no_report_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
):
    monkeypatch.chdir(tmp_path)
    Path("some.json").write_text(content)
    with pytest.raises(DataError, match=r"some\.json: not a report"):
        page.main("some.json")
    with pytest.raises(DataError, match="not found"):
        page.main("none.json")
    with pytest.raises(DataError, match=r"report\.json: not found"):
        page.main()
    assert not paths.OTHER_PAGE.exists()
