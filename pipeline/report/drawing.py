"""Draws charts: SVG for the page, PNG for MLflow, PDF for papers; and bundles what makes them interactive."""

import json
import re
from functools import cache
from pathlib import Path

import vl_convert

from pipeline.report.charts import PALETTE, SOFT, Chart

VEGA_LITE = "6.4"
LIGHT = {"ink": "#20242b", "soft": "#5c6675", "line": "#e3e7ec", "card": "#ffffff"}
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
CONFIG = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "title": {"anchor": "start", "fontSize": 13, "color": "var(--ink)"},
    "axis": {
        "labelColor": "var(--ink)", "titleColor": "var(--ink)", "gridColor": "var(--line)",
        "domainColor": SOFT, "tickColor": SOFT, "titleFontWeight": "normal", "labelFontSize": 11,
        "titleFontSize": 12,
    },
    "legend": {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 11,
               "labelLimit": 240, "columns": 4},
    "range": {"category": list(PALETTE)},
    "text": {"color": "var(--ink)"},
}  # fmt: skip


def complete(chart: Chart) -> Chart:
    """Returns a chart with the schema and the style that all share."""
    schema = f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.json"
    return {"$schema": schema, **chart, "config": CONFIG}


def svg(chart: Chart) -> str:
    """Returns a chart as an <svg> element that takes its colors from the page's CSS variables."""
    drawn: str = vl_convert.vegalite_to_svg(complete(chart), vl_version=VEGA_LITE)
    return drawn


def png(chart: Chart, path: Path) -> Path:
    """Writes a chart as PNG, in light colors, and returns its path."""
    path.write_bytes(vl_convert.vegalite_to_png(_light(chart), vl_version=VEGA_LITE, scale=1.5))
    return path


def pdf(chart: Chart) -> bytes:
    """Returns a chart as PDF, in light colors."""
    drawn: bytes = vl_convert.vegalite_to_pdf(_light(chart), vl_version=VEGA_LITE)
    return drawn


def _light(chart: Chart) -> Chart:
    """Returns a chart with colors in the place of CSS variables, which only a browser knows."""
    text = json.dumps({**complete(chart), "background": "white"})
    found: Chart = json.loads(re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], text))
    return found


@cache
def script() -> str:
    """Returns Vega-Lite, Vega and vega-embed as JavaScript, to stand in a <script> element."""
    bundle: str = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE
    )
    return bundle.replace("</script", "<\\/script")
