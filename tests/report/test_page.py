"""The report of a made-up study: its document, its page, its tables and pictures."""

import copy
import csv
import io
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from pipeline.command import TIMES
from pipeline.evaluation.scores import Predictions, outcomes_of
from pipeline.params import Study
from pipeline.report import drawing, gathering, page, reference
from pipeline.report.charts import charts, published_errors
from pipeline.report.deviations import deviations, of_study
from pipeline.report.document import REPORT
from pipeline.report.gathering import gather
from pipeline.report.predicted import missed_by_all
from pipeline.report.saving import headlines, metrics, plots
from pipeline.report.tables import Column, said, tables
from tests.conftest import REPO
from tests.report.studies import CLASSES, study_of, write_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, study = tmp_path_factory.mktemp("study"), study_of(seeds=2)
    write_study(root, study)
    found = gather(study, root)
    return {**found, "reference": reference.compare(found, reference.reference_of([found]))}


@pytest.fixture(scope="module")
def html(results: dict[str, Any]) -> str:
    return page.render(results, ["data:image/png;base64,AA=="])


def test_the_document_is_what_its_schema_says(results: dict[str, Any]):
    REPORT.validate_python(results)
    document = json.loads(json.dumps(results))
    jsonschema.validate(document, json.loads((REPO / "docs/schema/report.json").read_text()))
    REPORT.validate_python(json.loads((REPO / "report/report.json").read_text()))


class Page(HTMLParser):
    """What a browser would ask for, and what stands in which element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href") and value:
                self.addresses.append(value)
            if name == "id" and value:
                self.ids.append(value)
        if tag not in ("meta", "br", "img", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_asks_for_nothing(html: str):
    found = Page(html)
    assert found.open == []
    assert not [one for one in found.addresses if re.match(r"[a-z]+:", one) and "data:" not in one]
    assert "default-src 'none'" in html  # and the browser holds it to that
    assert len(set(found.ids)) == len(found.ids)
    named = {one.removeprefix("#") for one in found.addresses if one.startswith("#")}
    assert named <= set(found.ids)


def test_names_that_are_mathematics_or_markup_elsewhere_are_shown_as_they_are(html: str):
    assert "<b>&" not in html.split('id="specs"')[0]
    specs = json.loads(html.split('id="specs">')[1].split("</script>")[0])
    assert specs["confusion"]["encoding"]["x"]["sort"] == CLASSES


@pytest.mark.slow
def test_every_chart_is_drawn_without_a_warning(results: dict[str, Any], capfd: Any):
    for name, chart in charts(results).items():
        drawn = drawing.svg(chart)
        assert drawn.count("<path") + drawn.count("<line") > 5, name
        assert drawing.pdf(chart).startswith(b"%PDF"), name
        assert "NaN" not in drawn, name
    said = capfd.readouterr()
    assert "WARN" not in said.err + said.out


def test_each_picture_links_to_its_code_and_data(results: dict[str, Any], html: str):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)
    assert len(captions) == len(charts(results))
    for caption in captions:
        _, code, data = re.split("Code: |; data: ", caption)
        (source,) = re.findall('href="[.][.]/([^"]+)"', code)
        assert (REPO / source).is_file()
        targets = re.findall('href="[.][.]/([^"]+)"', data)
        assert targets and all(
            (REPO / target).exists() for target in targets if "tuned" not in target
        )
    assert 'href="../runs/' not in page.render(results, beside=False)


@pytest.mark.slow
def test_the_papers_errors_are_drawn_on_its_own_data_alone(results: dict[str, Any], html: str):
    shown = "Diamonds: the paper&#39;s test errors"
    assert shown in html
    by_name = {one["network"]: one["paper"] for one in published_errors(results, "residual")}
    assert by_name["resnet-20"] == 8.75
    assert not published_errors(results, "plain")
    assert html.count("The paper prints no numbers of these curves, but that plain") == 1
    other = {**results, "data": {**results["data"], "official": False}}
    assert shown not in page.render(other) and not published_errors(other, "residual")
    assert "The paper prints no numbers" not in page.render(other)
    short = copy.deepcopy(results)
    for row in short["rows"]:
        row["scores"]["updates"] = 300
    assert shown not in (said := page.render(short)) and "ticks: the paper" not in said
    assert "were trained for 64,000 updates, some of these for 300: their errors" in said
    other_recipe = copy.deepcopy(results)
    for row in other_recipe["rows"]:
        row["is_the_papers_recipe"] = row["name"].startswith("plain")
    assert shown not in (said := page.render(other_recipe))
    assert "Recipes of their own: resnet-20," in said
    assert "ticks: the paper" in html and "their errors are not to be compared" not in html
    pictures = [drawing.svg(charts(one)["curves-residual"]) for one in (results, other)]
    assert pictures[0] != pictures[1]


def test_the_page_says_in_what_this_study_differs_from_the_papers(results: dict[str, Any]):
    assert of_study(results) == []  # made up as the paper's
    other = copy.deepcopy(results)
    other["data"]["official"] = False
    for row in other["rows"]:
        row["scores"]["updates"], row["precision"], row["schedule"] = (
            300,
            "tf32",
            "schedules/mine.yaml",
        )
    said = of_study(other)
    assert [one.split(";")[0].split(":")[0] for one in said] == [
        "other data than the paper's", "300 updates", "tf32", "schedules of its own",
    ]  # fmt: skip
    assert said[1] in page.render(other)


def test_what_a_training_took_is_the_time_of_all_its_workers(results: dict[str, Any]):
    hours = [one["amount"] for one in charts(results)["time"]["data"]["values"]]
    twice = {**results, "rows": [{**row, "workers": 2 * row["workers"]} for row in results["rows"]]}
    assert [one["amount"] for one in charts(twice)["time"]["data"]["values"]] == pytest.approx(
        [2 * one for one in hours], rel=1e-3
    )


def test_each_claim_has_a_picture_where_something_was_measured(results: dict[str, Any]):
    for verdict in results["verdicts"]:
        drawn = str(page.picture(verdict))
        assert bool(drawn) == (verdict["value"] is not None), verdict["claim"]
        for number in re.findall(r'c?x[12]?="([-0-9.]+)"', drawn):
            assert 0 <= float(number) <= page.WIDTH
    own = [one for one in results["verdicts"] if one["of"] == "own"]
    assert [one["source"] for one in own] == ["params.yaml"] * 2
    assert own[0]["claim"] == (
        "The test error of resnet-56 is more than 0.5 points lower than that of plain-56"
    )
    assert own[0]["bound"] == -0.5
    assert own[0]["verdict"] == "holds"


def test_every_table_is_csv_and_latex(results: dict[str, Any]):
    found = {table.name: table for table in tables(results)}
    assert {"claims", "table-6", "networks", "seeds", "ensembles", "search-search"} <= found.keys()
    for table in found.values():
        lines = list(csv.reader(io.StringIO(table.csv())))
        assert len(lines) == len(table.lines) + 1
        assert len({len(line) for line in lines}) == 1
        assert len(set(lines[0])) == len(lines[0]), table.name
        latex = table.latex()
        assert latex.count(r"\\") == len(table.lines) + 1
        assert not re.search(
            r"(?<!\\)[%&#_](?! )", re.sub(r"^% .*\n", "", latex).replace(" & ", "  ")
        )
    rows = list(csv.DictReader(io.StringIO(found["networks"].csv())))
    first = results["rows"][0]["scores"]
    assert float(rows[0]["test error %"]) == first["test_error_pct"]
    assert float(rows[0]["test error % low"]) == first["test_error_pct_ci95"][0]


def test_cells_have_as_many_digits_as_decide():
    assert said(Column("", "interval", 1), (2.0, 1.0, 3.25)) == ("2.0", "1.0 to 3.2")
    assert said(Column("", "spread", 2), (2, None, 1, 3)) == ("2.00", "1.00 to 3.00")
    assert said(Column("", "spread", 2), (2, 0.5, 1, 3)) == ("2.00 ± 0.50", "1.00 to 3.00")
    assert said(Column("", "count"), 12345) == ("12,345", "")
    assert said(Column(""), None) == ("–", "")


def test_images_that_all_members_miss_are_those_that_every_one_gets_wrong():
    wrong = [np.array([True, True, False, True]), np.array([True, False, False, True])]
    probabilities = np.array([[0.4, 0.6], [0.5, 0.5], [1.0, 0.0], [0.1, 0.9]])
    together = Predictions(probabilities, np.array([0, 0, 0, 0]), np.arange(4))
    found = missed_by_all(wrong, outcomes_of(together), ["cat", "dog"])
    assert [(one["place"], one["label"], one["predicted"]) for one in found] == [
        (3, "cat", "dog"), (0, "cat", "dog"),
    ]  # fmt: skip
    assert found[0]["probability"] == 0.9


def test_metrics_fit_a_terminal_and_plots_have_every_line(results: dict[str, Any]):
    found = metrics(results)
    assert found["test"].keys() == {"ensemble", "plain-56", "resnet-56"}
    names = [name if isinstance(value, int) else f"{name}.{one}" for name, value in found.items()
             for one in (value if isinstance(value, dict) else [""])]  # fmt: skip
    assert sum(len(name) + 4 for name in ["report/metrics.json", *names]) < 130
    found = headlines(results)
    several = [group for group in results["groups"] if len(group["rows"]) > 1]
    assert len(found) == 2 * (len(results["groups"]) + len(several)) + 2
    assert all(found[f"test_error_pct_sd.{one['name']}"] > 0 for one in several)
    lines = plots(results)
    assert len(lines["curves"]) == sum(len(row["history"]) for row in results["rows"])
    assert sum(line["images"] for line in lines["confusion"]) == results["data"]["images"]["test"]


def test_the_deviations_from_the_paper_stand_on_the_page(html: str):
    assert [ours for ours, theirs in deviations() if not theirs] == ["CIFAR-10", "ImageNet", "both"]
    for named in (
        "25,000 of the training images are held out for validation", "momentum as torch's",
        "rows of one seed share the order of images", "searches train each trial with one worker",
    ):  # fmt: skip
        assert named in unescape(html)


def test_the_page_says_how_long_each_stage_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = [{"stage": "prepare", "seconds": 1.26}, {"stage": "train@net", "seconds": 30}]
    (tmp_path / "times").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.setenv(TIMES, str(tmp_path / "times"))
    assert gathering._stages() == [
        {"stage": "prepare", "seconds": 1.3}, {"stage": "train@net", "seconds": 30}
    ]  # fmt: skip
    (tmp_path / "times").unlink()  # by a cleaner of temporary folders
    assert gathering._stages() == []


@pytest.mark.slow
def test_a_large_study_has_a_small_page(tmp_path: Path):
    study = study_of(seeds=5)
    assert len(study.models) == 40
    write_study(tmp_path, study, images=1000, reports=200)
    text = page.render(gather(study, tmp_path))
    assert len(text.encode()) < 4_000_000


@pytest.mark.parametrize("budget, first", [("holds", "budget"), ("undecided", "paper")])
def test_the_claims_that_are_decided_come_first(budget: str, first: str):
    verdicts = [{"of": "paper", "verdict": "cannot be asked"}, {"of": "budget", "verdict": budget}]
    assert page.ordered(verdicts)[0] == first
    assert sorted(page.ordered(verdicts)) == ["budget", "paper"]  # no heading without a claim


def test_a_training_that_stands_twice_counts_once(tmp_path: Path):
    """As after `dvc exp run -S models.resnet-20.seed=2` in a study that has a row of seed 2."""
    study = study_of(seeds=2, depths=(20, 32))
    document = study.model_dump(mode="json")
    document["models"]["resnet-20"]["seed"] = 2
    write_study(tmp_path, twice := Study(**document))
    found = gather(twice, tmp_path)
    REPORT.validate_python(found)
    (group,) = (one for one in found["groups"] if "resnet-20" in one["rows"])
    assert (group["rows"], group["seeds"]) == (["resnet-20"], [2])
    assert page.render(found) and {row["name"] for row in found["rows"]} == set(twice.models)
    assert reference.compare(found, reference.reference_of([found]))["differ"] == 0
