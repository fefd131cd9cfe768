"""The page: one HTML file that opens without a network."""

import io
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from ruamel.yaml import YAML

from pipeline.report import figures


def _as_yaml(document: dict[str, Any]) -> str:
    out = io.StringIO()
    YAML().dump(document, out)
    return out.getvalue()


def render(results: dict[str, Any]) -> str:
    """Returns report/index.html for the results that `pipeline.report.gathering.gather` returns."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["as_yaml"] = _as_yaml
    environment.filters["interval"] = lambda ci: f"{ci[0]:.1f} to {ci[1]:.1f}"
    template = environment.from_string(
        (files("pipeline.report") / "page.html").read_text(encoding="utf-8")
    )
    matrix = results["ensemble"]["declared"]["test_confusion"]
    pictures: dict[str, Any] = {
        "curves": figures.svg(figures.curves(results["rows"], results["groups"])),
        "errors": figures.svg(
            figures.test_errors(results["groups"], results["rows"], results["ensemble"])
        ),
        "searches": {
            search["name"]: figures.svg(figures.search(search["trials"]))
            for search in results["searches"]
        },
    }
    if matrix is not None:
        figure = figures.confusion(matrix, results["data"]["classes"], "declared ensemble, test")
        pictures["confusion"] = figures.svg(figure)
    if results["scales_px"]:
        pictures["views"] = figures.svg(figures.views(results["rows"], results["ensemble"]))
    several = [group for group in results["groups"] if len(group["seeds"]) > 1]
    return template.render(**results, several=several, pictures=pictures)
