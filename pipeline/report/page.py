"""The page: one HTML file that opens without a network."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, get_args

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.formats import as_yaml
from pipeline.report import drawing
from pipeline.report.charts import FEW_IMAGES, charts, published_errors
from pipeline.report.claims.asking import DECIDED
from pipeline.report.claims.claim import Verdict, digits_of
from pipeline.report.deviations import deviations, of_study
from pipeline.report.tables import tables

KINDS = {
    "paper": "Claims of the paper",
    "budget": "Claims about speed, at the updates that were made",
    "own": "Claims of this study",
}
WIDTH, HEIGHT, MARGIN = 190, 30, 8  # of a claim's picture, in pixels


def render(results: dict[str, Any], images: Sequence[str] = (), *, beside: bool = True) -> str:
    """Returns report/index.html for the results that `pipeline.report.gathering.gather` returns.

    `images` are pictures of the first of `missed_by_all`, as data: addresses. `beside` tells whether the tables
    lie beside the page.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["as_yaml"] = as_yaml
    environment.filters["picture"] = picture
    folder = files("pipeline.report")
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    drawn = charts(results)
    specs = {name: drawing.complete(chart) for name, chart in drawn.items()}
    said = [one["verdict"] for one in results["verdicts"]]
    counts = {verdict: said.count(verdict) for verdict in get_args(Verdict) if verdict in said}
    return template.render(
        **{"versions": {}, **results},
        counts=counts,
        beside=beside,
        kinds=[(kind, KINDS[kind]) for kind in ordered(results["verdicts"])],
        drawn={name: Markup(drawing.svg(chart)) for name, chart in drawn.items()},
        published=[
            f"curves-{one}" for one in ("plain", "residual") if published_errors(results, one)
        ],
        tables={table.name: table for table in tables(results)},
        deviations=deviations(),
        of_this_study=of_study(results),
        few_images=FEW_IMAGES,
        images=list(zip(results["missed_by_all"], images, strict=False)),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        specs=Markup(json.dumps(specs, separators=(",", ":")).replace("</", "<\\/")),
        library=Markup(drawing.script()),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
    )


def ordered(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the kinds of claims that a page has, first of which most are decided."""
    kinds = [kind for kind in KINDS if any(one["of"] == kind for one in verdicts)]
    decided = [one["of"] for one in verdicts if one["verdict"] in DECIDED]
    return sorted(kinds, key=decided.count, reverse=True)


def picture(verdict: dict[str, Any]) -> Markup:
    """Returns a claim's number with its 95 % interval against what it must be, as an <svg> element."""
    if verdict["value"] is None:
        return Markup("")
    low, high = verdict["interval"]
    bound, must_be = verdict["bound"], verdict["must_be"]
    marks = [-bound, bound] if must_be == "within" else [bound]
    ends = [low, high, verdict["value"], 0.0, *marks]
    least, most = min(ends), max(ends)
    spread = (most - least) or 1.0
    least, most = least - 0.08 * spread, most + 0.08 * spread

    def at(value: float) -> float:
        return round(float(MARGIN + (WIDTH - 2 * MARGIN) * (value - least) / (most - least)), 1)

    start, end = {
        "above": (at(bound), WIDTH - MARGIN),
        "below": (MARGIN, at(bound)),
        "within": (at(-bound), at(bound)),
    }[must_be]
    middle = HEIGHT / 2
    lines = "".join(
        f'<line class="bound" x1="{at(mark)}" x2="{at(mark)}" y1="3" y2="{HEIGHT - 3}"/>'
        for mark in marks
    )
    unit, digits = f" {verdict['unit']}".rstrip(), digits_of(high - low)
    said = (
        f"{verdict['value']:.{digits}f}{unit}, 95 % interval {low:.{digits}f} to {high:.{digits}f}; the claim "
        f"holds {must_be} {bound:g}"
    )
    return Markup(
        f'<svg class="interval" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{said}"><title>{said}</title>'
        f'<rect class="zone" x="{start}" y="3" width="{max(end - start, 0):.1f}" height="{HEIGHT - 6}"/>'
        f"{lines}"
        f'<line class="line" x1="{at(low)}" x2="{at(high)}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot" cx="{at(verdict["value"])}" cy="{middle}" r="4.5"/></svg>'
    )
