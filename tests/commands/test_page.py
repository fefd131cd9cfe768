"""`make page` writes the page of a report that lies somewhere else."""

from pathlib import Path

import pytest

from pipeline import paths
from pipeline.commands import page
from pipeline.errors import DataError, ParamsError
from tests.conftest import REPO


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
    with pytest.raises(ParamsError, match="FROM"):
        page.main()
    assert not paths.OTHER_PAGE.exists()
