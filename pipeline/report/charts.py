"""The report's pictures as Vega-Lite specifications (https://vega.github.io/vega-lite/docs/).

One specification serves the page, where it is interactive, and SVG, PNG and PDF files
(`pipeline.report.drawing`). Colors are CSS variables, so that one picture fits a light and a dark page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import paper
from pipeline.report.deviations import is_trained_as_the_papers
from pipeline.report.predicted import cells_of, rows_and_ensembles

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Chart = dict[str, Any]

PALETTE = ("#4269d0", "#e08a00", "#e0533d", "#2f9e8f", "#3ca951", "#d65a94", "#8a5be0", "#6f93d8")
KINDS = {"plain": PALETTE[2], "residual": PALETTE[0], "other": PALETTE[3], "ensemble": PALETTE[4]}
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
SOFT = "var(--soft)"
MOST_CLASSES = 20  # of a confusion matrix with its numbers
INTERVAL_STEP, MATRIX_PX = 26, 420
FEW_IMAGES = 10  # of a bin of confidence: fewer say nothing


def charts(results: Results) -> dict[str, Chart]:
    """Returns the pictures of a study by name, those that it has results for."""
    found = {f"curves-{kind}": curves(results, kind) for kind in _kinds(results)}
    found["errors"] = errors(results)
    found["multiply-adds"] = against(results, "multiply_adds", "multiply-adds of one image")
    found["time"] = against(results, "hours", "training time (workers' hours × price)")
    if any(row["responses"] for row in results["rows"]):
        found["responses"] = responses(results)
        found["responses-sorted"] = responses(results, ranked=True)
    if results["scales_px"]:
        found["views"] = views(results)
    for search in results["searches"]:
        found[f"search-{search['name']}"] = parallel(search)
        found[f"trials-{search['name']}"] = trials(search)
    found["calibration"] = calibration(results)
    if results["ensemble"]["declared"]["confusion"] is not None:
        found["confusion"] = confusion(results)
    return found


def _kinds(results: Results) -> list[str]:
    there = {group["kind"] for group in results["groups"]}
    return [kind for kind in ("plain", "residual", "other") if kind in there]


def _by_kind(kinds: set[str]) -> dict[str, Any]:
    """Returns the encoding that colors by kind of network; the legend names only those that are there."""
    return {
        "field": "kind", "type": "nominal", "title": None,
        "scale": {"domain": list(KINDS), "range": list(KINDS.values())},
        "legend": {"orient": "top", "values": [kind for kind in KINDS if kind in kinds]},
    }  # fmt: skip


def _number(value: float) -> float:
    """Returns a value to draw, with as many digits as a picture can show."""
    return float(f"{value:.5g}")


def _names(groups: Sequence[Row], depths: Sequence[int]) -> dict[str, Any]:
    """Returns the encodings that tell networks apart: color by depth, a dash among those of one depth."""
    order = sorted(set(depths))
    seen: list[int] = []
    dashes = []
    for group in groups:
        dashes.append(DASHES[seen.count(group["depth"]) % len(DASHES)])
        seen.append(group["depth"])
    names = [group["name"] for group in groups]
    colors = [PALETTE[order.index(group["depth"]) % len(PALETTE)] for group in groups]
    legend = {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3}
    shared = {"field": "network", "type": "nominal", "title": None, "legend": legend}
    return {
        "color": {**shared, "scale": {"domain": names, "range": colors}},
        "strokeDash": {**shared, "scale": {"domain": names, "range": dashes}},
    }


PICKED = {"condition": {"param": "pick", "value": 1}, "value": 0.12}


def _pick(field: str = "network") -> dict[str, Any]:
    return {"name": "pick", "select": {"type": "point", "fields": [field]}, "bind": "legend"}


def curves(results: Results, kind: str) -> Chart:
    """Figures 1, 4 and 6: error by update of plain, residual or other networks.

    Bold: validation; thin: training, on augmented images. A network with several seeds is drawn as their
    mean, with a band of one standard deviation. Diamonds: the paper's test errors, on the paper's data.
    """
    rows = {row["name"]: row for row in results["rows"]}
    groups = [group for group in results["groups"] if group["kind"] == kind]
    values = [
        {
            "network": group["name"],
            "row": name,
            "update": line["update"],
            "train": _number(line["train_error_pct"]),
            "val": _number(line["val_error_pct"]),
        }
        for group in groups
        for name in group["rows"]
        for line in rows[name]["history"]
    ]
    several = any(len(group["rows"]) > 1 for group in groups)
    names = [group["name"] for group in groups]
    scale = {"domain": [0, 100], "clamp": True}
    error = {"type": "quantitative", "title": "error (%)", "scale": scale}
    over = [
        {"aggregate": [{"op": op, "field": field, "as": name} for op, field, name in (
            ("mean", "train", "train"), ("mean", "val", "val"), ("stdev", "val", "sd"))],
         "groupby": ["network", "update"]},
        {"calculate": "max(datum.val - (datum.sd || 0), 0)", "as": "low"},
        {"calculate": "datum.val + (datum.sd || 0)", "as": "high"},
    ]  # fmt: skip
    told_apart = _names(groups, [group["depth"] for group in results["groups"]])
    dash = {"strokeDash": told_apart.pop("strokeDash")}
    layers: list[Chart] = [
        {"mark": {"type": "line", "strokeWidth": 1, "aria": False},
         "encoding": {"y": {**error, "field": "train"}, **dash}},
        {"mark": {"type": "line", "strokeWidth": 2.4, "aria": False},
         "encoding": {"y": {**error, "field": "val"}, **dash}},
        {
            "transform": [
                {"pivot": "network", "value": "val", "op": "mean", "groupby": ["update"]},
                *({"calculate": f"isValid(datum['{name}']) ? format(datum['{name}'], '.2f') : '–'",
                   "as": name} for name in names),
            ],
            "params": [{"name": "hover", "select": {
                "type": "point", "fields": ["update"], "nearest": True, "on": "pointerover",
                "clear": "pointerout"}}],
            "mark": {"type": "rule", "strokeWidth": 1, "aria": False},
            "encoding": {
                "color": {"value": SOFT},
                "opacity": {"condition": {"param": "hover", "empty": False, "value": 0.8}, "value": 0},
                "tooltip": [{"field": "update", "type": "quantitative", "format": ","}] + [
                    {"field": name, "type": "nominal"} for name in names],
            },
        },
    ]  # fmt: skip
    if several:
        band = {"y": {**error, "field": "low"}, "y2": {"field": "high"}}
        layers.insert(0, {
            "mark": {"type": "area", "fillOpacity": 0.18, "strokeOpacity": 0, "aria": False},
            "encoding": band,
        })  # fmt: skip
    if published := published_errors(results, kind):
        layers.append({
            "data": {"values": published},
            "mark": {"type": "point", "shape": "diamond", "filled": True, "size": 90, "aria": False},
            "encoding": {
                "y": {**error, "field": "paper"},
                "tooltip": [{"field": "network"}, {"field": "paper", "title": "the paper's test error (%)"}],
            },
        })  # fmt: skip
    layers[0].setdefault("params", []).append(_pick())
    return {
        "description": f"Training and validation error of {kind} networks by update",
        "title": f"{kind} networks",
        "width": 480,
        "height": 300,
        "data": {"values": values},
        "transform": over,
        "encoding": {
            "x": {"field": "update", "type": "quantitative", "title": "update", "axis": {"tickCount": 6}},
            "opacity": PICKED,
            **told_apart,
        },
        "layer": layers,
        "usermeta": {"curves": True},
    }  # fmt: skip


def published_errors(results: Results, kind: str) -> list[Row]:
    """Returns the paper's test errors of networks (table 6) at their last update, as far as these are to be compared.

    That is on the paper's data, by its recipe, and after as many updates.
    """
    if not results["data"]["official"]:
        return []
    rows = {row["name"]: row for row in results["rows"]}
    found = [(group, rows[group["name"]]) for group in results["groups"] if group["kind"] == kind]
    return [
        {"network": group["name"], "update": row["history"][-1]["update"], "paper": error}
        for group, row in found
        if row["family"] == "cifar"
        and is_trained_as_the_papers(row)
        and (error := paper.cifar10_test_error_pct(row["depth"], row["option"])) is not None
    ]


def errors(results: Results) -> Chart:
    """Test error of every network and of both ensembles with 95 % intervals; a dot for each seed."""
    rows = {row["name"]: row["scores"]["test_error_pct"] for row in results["rows"]}
    theirs = {
        one["network"]: one["paper"]
        for kind in _kinds(results)
        for one in published_errors(results, kind)
    }
    values = []
    for group in results["groups"]:
        low, high = group["test_error_pct"]["ci95"]
        values.append({
            "network": group["name"], "kind": group["kind"], "error": group["test_error_pct"]["mean"],
            "low": low, "high": high, "paper": theirs.get(group["name"]),
            "seeds": [rows[name] for name in group["rows"]],
        })  # fmt: skip
    for kind, found in results["ensemble"].items():
        low, high = found["test_error_pct_ci95"]
        values.append({
            "network": f"ensemble ({kind})", "kind": "ensemble", "error": found["test_error_pct"],
            "low": low, "high": high, "paper": None, "seeds": [],
        })  # fmt: skip
    order = [value["network"] for value in values]
    y = {
        "field": "network",
        "type": "nominal",
        "sort": order,
        "title": None,
        "axis": {"labelLimit": 220},
    }
    color = _by_kind({value["kind"] for value in values})
    tooltip = [
        {"field": "network", "type": "nominal"},
        *({"field": name, "type": "quantitative", "format": ".2f"}
          for name in ("error", "low", "high", "paper")),
    ]  # fmt: skip
    x = {"type": "quantitative", "scale": {"zero": True}}
    layers = [
        {"mark": {"type": "bar", "height": 14},
         "encoding": {"x": {**x, "field": "error", "title": "test error (%)"}, "color": color,
                      "tooltip": tooltip}},
        {"mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1.4, "aria": False},
         "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}}},
        {"transform": [{"flatten": ["seeds"]}],
         "mark": {"type": "point", "filled": True, "fill": "var(--card)", "stroke": "var(--ink)",
                  "strokeWidth": 1, "size": 22, "opacity": 1, "aria": False},
         "encoding": {"x": {**x, "field": "seeds"}}},
    ]  # fmt: skip
    if any(value["paper"] is not None for value in values):
        tick = {"type": "tick", "color": PALETTE[1], "thickness": 3, "height": 18, "aria": False}
        layers.append({"transform": [{"filter": "isValid(datum.paper)"}], "mark": tick,
                       "encoding": {"x": {**x, "field": "paper"}}})  # fmt: skip
    return {
        "description": "Test error of every network and ensemble with 95 % intervals",
        "title": "Test error, 95 % intervals",
        "width": 480,
        "height": INTERVAL_STEP * len(values),
        "data": {"values": values},
        "encoding": {"y": y},
        "layer": layers,
    }


def against(results: Results, what: str, title: str) -> Chart:
    """Test error of every network against what it costs: multiply-adds, or hours of training.

    Hours are those of all workers together. In a browser they can be multiplied by what an hour costs.
    """
    rows = {row["name"]: row for row in results["rows"]}
    timed, values = what == "hours", []
    for group in results["groups"]:
        first = rows[group["name"]]
        hours = [
            rows[name]["scores"]["train_seconds"] / 3600 * rows[name]["workers"]
            for name in group["rows"]
        ]
        amount = sum(hours) / len(hours) if timed else first["multiply_adds"]
        low, high = group["test_error_pct"]["ci95"]
        values.append({
            "network": group["name"], "kind": group["kind"], "amount": _number(amount), "low": low,
            "high": high, "error": group["test_error_pct"]["mean"],
        })  # fmt: skip
    _stack(values)
    x = {
        "field": "cost" if timed else "amount",
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "nice": False, "padding": 44},  # half a name
        # a label as near to the end as half its width would lie beyond the picture
        "axis": {"format": ",.2~r" if timed else ".2~s", "tickCount": 5, "labelFlush": 20},
    }
    price: Chart = {
        "params": [{"name": "price", "value": 1, "bind": {
            "input": "number", "min": 0, "step": "any", "name": "price of an hour of one worker "}}],
        "transform": [{"calculate": "datum.amount * (price > 0 ? price : 1)", "as": "cost"}],
    }  # fmt: skip
    return {
        "description": f"Test error of every network against {title}",
        "title": f"Error against {title.partition(' (')[0]}",
        **(price if timed else {}),
        "width": 480,
        "height": 260,
        "data": {"values": values},
        "encoding": {"x": x, "color": _by_kind(set(_kinds(results)))},
        "layer": [
            {"mark": {"type": "rule", "opacity": 0.5, "aria": False}, "encoding": {
                "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.75}, "encoding": {
                "y": {"field": "error", "type": "quantitative", "title": "test error (%)",
                      "axis": {"labelExpr": "datum.value < 0 ? '' : datum.label"},
                      "scale": {"padding": 32, "nice": False}},  # room for names below points
                "tooltip": [{"field": "network", "type": "nominal"},
                            {**x, "format": ",.3~r" if timed else ".4~s"},
                            {"field": "error", "type": "quantitative", "format": ".2f"}]}},
            {"mark": {"type": "text", "fontSize": 10, "aria": False,
                      "dy": {"expr": "datum.place * 11 + (datum.kind === 'plain' ? -11 : 14)"}}, "encoding": {
                "text": {"field": "network"}, "color": {"value": SOFT},
                "y": {"field": "error", "type": "quantitative"}}},
        ],
    }  # fmt: skip


def _stack(values: list[dict[str, Any]]) -> None:
    """Notes for each network in how many lines from its point its name stands: away from its neighbors' names.

    Those of plain networks stand above their points, the others' below.
    """
    amounts, errors = ([value[name] for value in values] for name in ("amount", "error"))
    reach, rise = math.log(max(amounts) / min(amounts)), max(errors) - min(errors)
    done: list[dict[str, Any]] = []
    for value in sorted(values, key=lambda value: -value["error"]):
        near = {
            other["place"]
            for other in done
            if (other["kind"] == "plain") == (value["kind"] == "plain")
            and abs(math.log(other["amount"] / value["amount"])) <= 0.15 * reach
            and abs(other["error"] - value["error"]) <= 0.08 * rise  # two lines of names
        }
        steps = range(0, -len(values), -1) if value["kind"] == "plain" else range(len(values))
        value["place"] = next(step for step in steps if step not in near)
        done.append(value)


def responses(results: Results, *, ranked: bool = False) -> Chart:
    """Figure 7: the standard deviation of each layer's output, by layer or ranked by size."""
    rows = {row["name"]: row for row in results["rows"]}
    groups = [group for group in results["groups"] if rows[group["name"]]["responses"]]
    values = []
    for group in groups:
        found = [rows[name]["responses"] for name in group["rows"] if rows[name]["responses"]]
        each = [sorted(one, reverse=True) if ranked else one for one in found]
        for layer, stds in enumerate(zip(*each, strict=True), start=1):
            mean = _number(sum(stds) / len(stds))
            values.append(
                {"network": group["name"], "kind": group["kind"], "layer": layer, "std": mean}
            )
    names = _names(groups, [group["depth"] for group in results["groups"]])
    return {
        "description": "Standard deviations of the layers' outputs, as figure 7 of the paper",
        "title": "ranked by size" if ranked else "by layer",
        "width": 480,
        "height": 240,
        "data": {"values": values},
        "params": [_pick()],
        "mark": {"type": "line", "strokeWidth": 2, "aria": False},
        "encoding": {
            "x": {"field": "layer", "type": "quantitative",
                  "title": "rank" if ranked else "layer"},
            "y": {"field": "std", "type": "quantitative", "title": "standard deviation"},
            "opacity": PICKED,
            "tooltip": [{"field": name, "type": kind} for name, kind in (
                ("network", "nominal"), ("layer", "quantitative"), ("std", "quantitative"))],
            **names,
        },
    }  # fmt: skip


def views(results: Results) -> Chart:
    """Test error of photographs' networks and ensembles by view: one crop, ten crops, scales."""
    kinds = {"one crop": "test_", "ten crops": "test_ten_crops_", "scales": "test_scales_"}
    scores = {row["name"]: row["scores"] for row in results["rows"]}
    scores |= {f"ensemble ({kind})": found for kind, found in results["ensemble"].items()}
    values = []
    for name, found in scores.items():
        for view, prefix in kinds.items():
            low, high = found[f"{prefix}error_pct_ci95"]
            values.append({"network": name, "view": view, "error": found[f"{prefix}error_pct"],
                           "low": low, "high": high})  # fmt: skip
    y = {"field": "network", "type": "nominal", "sort": list(scores), "title": None}
    shared = {
        "y": y, "yOffset": {"field": "view", "sort": list(kinds)},
        "color": {"field": "view", "type": "nominal", "title": None, "sort": list(kinds),
                  "scale": {"range": list(PALETTE[:3])}, "legend": {"orient": "top"}},
    }  # fmt: skip
    return {
        "description": "Test errors by view with 95 % intervals",
        "title": "Test error by view, with 95 % intervals",
        "width": 480,
        "height": 12 * len(values),
        "data": {"values": values},
        "encoding": shared,
        "layer": [
            {"mark": {"type": "rule", "aria": False}, "encoding": {
                "x": {"field": "low", "type": "quantitative", "title": "test error (%)"},
                "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 40, "opacity": 1}, "encoding": {
                "x": {"field": "error", "type": "quantitative"},
                "tooltip": [{"field": "network", "type": "nominal"}, {"field": "view", "type": "nominal"},
                            {"field": "error", "type": "quantitative", "format": ".2f"}]}},
        ],
    }  # fmt: skip


DIMENSIONS = {
    "base_lr": "base lr (log)", "warmup": "warm-up (share)", "first": "first drop (share)",
    "second": "second drop (share)",
    "error": "validation error",
}  # fmt: skip


def parallel(search: Row) -> Chart:
    """The trials of a search in parallel coordinates: what was tried, and the validation error."""
    values = []
    longest = max(int(trial["updates"]) for trial in search["trials"])
    for place, trial in enumerate(search["trials"]):
        drops = [int(drop) / longest for drop in trial["drops"].split()]
        first, second = drops if len(drops) == 2 else (None, None)
        axes = {
            "base_lr": math.log10(float(trial["base_lr"])),
            "warmup": int(trial["warmup_updates"]) / longest,
            "first": first,
            "second": second,
            "error": float(trial["val_error_pct"]) if trial["val_error_pct"] else None,
        }
        values.append({"trial": int(trial["number"]), "shape": trial["shape"], "place": place,
                       "status": "chosen" if place == 0 else trial["status"], **axes})  # fmt: skip
    ends = {}
    for axis in DIMENSIONS:
        there = [value[axis] for value in values if value[axis] is not None]
        ends[axis] = (min(there, default=0.0), max(there, default=1.0))
    points = []
    for value in values:
        for axis, title in DIMENSIONS.items():
            if value[axis] is not None:
                low, high = ends[axis]
                shown = 10 ** value[axis] if axis == "base_lr" else value[axis]
                points.append({
                    **{key: value[key] for key in ("trial", "shape", "status")}, "axis": title,
                    "at": (value[axis] - low) / (high - low) if high > low else 0.5,
                    "value": _number(shown),
                })  # fmt: skip
    labels = [
        {"axis": title, "at": at, "label": f"{10**end if axis == 'base_lr' else end:.3g}"}
        for axis, title in DIMENSIONS.items()
        for at, end in zip((0, 1), ends[axis], strict=True)
    ]
    x = {"field": "axis", "type": "nominal", "sort": list(DIMENSIONS.values()), "title": None,
         "axis": {"labelAngle": 0, "grid": True, "gridColor": "var(--line)", "labelLimit": 90,
                  "labelExpr": "split(datum.label, ' ')"}}  # a line for each word  # fmt: skip
    y = {"field": "at", "type": "quantitative", "axis": None}
    return {
        "description": "The trials of the search in parallel coordinates",
        "title": "What was tried, and where it led",
        "width": 480,
        "height": 260,
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "data": {"values": points},
                "params": [_pick("shape")],
                "mark": {"type": "line", "point": {"size": 30}, "aria": False},
                "encoding": {
                    "detail": {"field": "trial"}, "opacity": PICKED,
                    "color": {"field": "shape", "type": "nominal", "title": None,
                              "legend": {"orient": "top"}, "scale": {"range": list(PALETTE[:4])}},
                    "size": {"condition": {"test": "datum.status === 'chosen'", "value": 4}, "value": 1.2},
                    "strokeDash": {"condition": {"test": "datum.status === 'stopped'", "value": [4, 3]},
                                   "value": [1, 0]},
                    "tooltip": [{"field": name} for name in ("trial", "shape", "status", "axis", "value")],
                },
            },
            {"data": {"values": labels},
             "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": 9, "color": SOFT,
                      "dy": {"expr": "datum.at === 0 ? -6 : 0"}, "aria": False},
             "encoding": {"text": {"field": "label"}}},
        ],
    }  # fmt: skip


def trials(search: Row) -> Chart:
    """The validation error of each trial of a search by update."""
    chosen = int(search["trials"][0]["number"])
    values = [
        {"trial": int(line["number"]), "update": int(line["update"]),
         "error": _number(line["val_error_pct"]), "lr": line["lr"],
         "chosen": "chosen" if int(line["number"]) == chosen else "others"}
        for line in search["curves"]
    ]  # fmt: skip
    return {
        "description": "Validation error of each trial by update",
        "title": "Each trial's validation error",
        "width": 480,
        "height": 260,
        "data": {"values": values},
        "mark": {"type": "line", "point": True, "aria": False},
        "encoding": {
            "x": {"field": "update", "type": "quantitative", "title": "update",
                  "axis": {"tickCount": 5}, "scale": {"domainMin": 0}},
            "y": {"field": "error", "type": "quantitative", "title": "validation error (%)"},
            "detail": {"field": "trial"},
            "color": {"field": "chosen", "type": "nominal", "title": None, "legend": {"orient": "top"},
                      "scale": {"domain": ["chosen", "others"], "range": [PALETTE[0], SOFT]}},
            "strokeWidth": {"condition": {"test": "datum.chosen === 'chosen'", "value": 2.6}, "value": 1},
            "tooltip": [{"field": name} for name in ("trial", "update", "error", "lr")],
        },
    }  # fmt: skip


def calibration(results: Results) -> Chart:
    """Reliability diagrams: how often a network is right when it is so confident (Guo et al. 2017)."""
    rows = rows_and_ensembles(results)
    shown = [{"name": group["name"], "depth": group["depth"]} for group in results["groups"]]
    deepest = max(group["depth"] for group in shown)
    for place, kind in enumerate(results["ensemble"], start=1):  # in colors of their own
        shown.append({"name": f"ensemble ({kind})", "depth": deepest + place})
    names = _names(shown, [group["depth"] for group in shown])
    dash = {"strokeDash": names.pop("strokeDash")}
    values = [
        {"network": group["name"], **{key: _number(part[key]) for key in ("confidence", "accuracy")},
         "images": part["images"]}
        for group in shown
        for part in rows[group["name"]]["calibration"]
        if part["images"] >= FEW_IMAGES
    ]  # fmt: skip
    unit = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    return {
        "description": "Reliability diagrams on the test images",
        "title": "Calibration on test images",
        "width": 420,
        "height": 320,
        "layer": [
            {"data": {"values": [{"a": 0, "b": 0}, {"a": 1, "b": 1}]},
             "mark": {"type": "line", "color": SOFT, "strokeDash": [4, 4], "aria": False},
             "encoding": {"x": {"field": "a", **unit}, "y": {"field": "b", **unit}}},
            {"data": {"values": values},
             "params": [_pick()],
             "mark": {"type": "line", "strokeWidth": 1, "aria": False},
             "encoding": {**_calibrated(unit), **names, **dash}},
            {"data": {"values": values},
             "mark": {"type": "point", "filled": True, "aria": False},
             "encoding": {
                 **_calibrated(unit), **names,
                 "size": {"field": "images", "type": "quantitative", "legend": None,
                          "scale": {"range": [8, 260]}},
                 "tooltip": [{"field": name} for name in ("network", "confidence", "accuracy", "images")]}},
        ],
    }  # fmt: skip


def _calibrated(unit: Chart) -> Chart:
    return {
        "x": {"field": "confidence", "title": "confidence", **unit},
        "y": {"field": "accuracy", "title": "share that is right", **unit},
        "opacity": PICKED,
    }


def confusion(results: Results, name: str | None = None) -> Chart:
    """A confusion matrix on test images, true classes down, predicted across; the page lets one choose.

    With `name`, of that row or ensemble alone. Cells are colored by their share of the true class.
    """
    everything = rows_and_ensembles(results)
    declared = "ensemble (declared)"
    first = [group["name"] for group in results["groups"]]
    shown = [name] if name else [declared, "ensemble (greedy)", *first]
    classes = results["data"]["classes"]
    if len(classes) > MOST_CLASSES and not name:
        shown = shown[:2]
    values = []
    for one in shown:
        matrix = everything[one]["confusion"]
        totals = [max(sum(row), 1) for row in matrix]
        values += [
            {"of": one, "true": classes[label], "predicted": classes[place], "images": count,
             "share": round(count / totals[label], 4)}
            for label, place, count in cells_of(matrix)
        ]  # fmt: skip
    axis = {"labelLimit": 120, "labelAngle": -90 if max(map(len, classes)) > 2 else 0}
    encoding = {
        "x": {"field": "predicted", "type": "nominal", "sort": classes, "scale": {"domain": classes},
              "axis": axis},
        "y": {"field": "true", "type": "nominal", "sort": classes, "scale": {"domain": classes},
              "axis": {"labelLimit": 120}},
    }  # fmt: skip
    text = {
        "mark": {"type": "text", "fontSize": 10, "aria": False},
        "encoding": {
            "text": {"field": "images"},
            "color": {"condition": {"test": "datum.share > 0.5", "value": "white"}, "value": "var(--ink)"},
        },
    }  # fmt: skip
    chart: Chart = {
        "description": "Confusion matrix on test images",
        "title": f"{name}: test images" if name else "Confusion on test images",
        "width": MATRIX_PX,
        "height": MATRIX_PX,
        "data": {"values": values},
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "rect", "color": PALETTE[0], "aria": False},
             "encoding": {
                 "fillOpacity": {"field": "share", "type": "quantitative", "legend": None,
                                 "scale": {"domain": [0, 1], "range": [0.06, 1]}},
                 "tooltip": [{"field": field} for field in ("true", "predicted", "images", "share")]}},
            *([text] if len(classes) <= MOST_CLASSES else []),
        ],
    }  # fmt: skip
    if not name:
        chart["params"] = [{"name": "of", "value": declared, "bind": {
            "input": "select", "options": shown, "name": "of "}}]  # fmt: skip
        chart["transform"] = [{"filter": "datum.of === of"}]
    return chart
