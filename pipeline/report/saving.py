"""Writes what the report stage leaves: the page, report.json, tables as CSV, metrics and plots for DVC."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline import paths
from pipeline.errors import DataError
from pipeline.files import write, write_json
from pipeline.formats import as_csv
from pipeline.report import page
from pipeline.report.document import REPORT
from pipeline.report.predicted import cells_of
from pipeline.report.tables import tables


def save(results: dict[str, Any], images: Sequence[str]) -> None:
    """Writes all of it; `images` are pictures of the test images that every member gets wrong."""
    REPORT.validate_python(results)
    write(paths.PAGE, page.render(results, images))
    for table in tables(results):
        write(paths.TABLES / f"{table.name}.csv", table.csv())
    for name, lines in plots(results).items():
        write(paths.PLOTS / f"{name}.csv", as_csv(lines))
    write_json(paths.SHOWN_METRICS, metrics(results))
    write_json(paths.REPORT, results)


def saved() -> dict[str, Any]:
    """Returns the study's report.json as `save` wrote it; raises DataError if there is none."""
    if not paths.REPORT.exists():
        raise DataError(f"{paths.REPORT}: not found: `make study` writes it")
    found: dict[str, Any] = json.loads(paths.REPORT.read_text(encoding="utf-8"))
    return found


def headlines(results: dict[str, Any]) -> dict[str, float]:
    """Returns the few numbers of a study: errors by network, mean and deviation over seeds, and of the ensemble."""
    found = {
        f"{name}{suffix}.{group['name']}": group[name][of_seeds]
        for name in ("test_error_pct", "train_error_pct")
        for suffix, of_seeds in (("", "mean"), ("_sd", "sd"))
        for group in results["groups"]
        if group[name][of_seeds] is not None
    }
    found["test_error_pct.ensemble"] = results["ensemble"]["declared"]["test_error_pct"]
    found["claims_decided"] = results["claims_decided"]
    return found


def metrics(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the fewer ones of `dvc metrics show` and `dvc exp show`, which must fit a terminal's width.

    They are the claims decided, and errors in percent of the ensemble and of the deepest plain and residual
    networks.
    """
    deepest: dict[str, Any] = {}
    for group in results["groups"]:
        if group["kind"] not in deepest or group["depth"] > deepest[group["kind"]]["depth"]:
            deepest[group["kind"]] = group
    ensemble = {"ensemble": round(results["ensemble"]["declared"]["test_error_pct"], 3)}
    errors = {
        split: {
            one["name"]: round(one[f"{split}_error_pct"]["mean"], 3) for one in deepest.values()
        }
        for split in ("test", "train")
    }
    return {"claims": results["claims_decided"], **errors, "test": {**ensemble, **errors["test"]}}


def plots(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns what `dvc plots show` draws: curves, errors with intervals, and the ensemble's confusion."""
    rows = {row["name"]: row for row in results["rows"]}
    curves = [
        {"network": group["name"], "row": name, "update": line["update"],
         "train_error_pct": line["train_error_pct"], "val_error_pct": line["val_error_pct"]}
        for group in results["groups"]
        for name in group["rows"]
        for line in rows[name]["history"]
    ]  # fmt: skip
    errors = [
        {"network": group["name"], "test_error_pct": group["test_error_pct"]["mean"],
         "low": group["test_error_pct"]["ci95"][0], "high": group["test_error_pct"]["ci95"][1]}
        for group in results["groups"]
    ]  # fmt: skip
    classes = results["data"]["classes"]
    matrix = results["ensemble"]["declared"]["confusion"] or []
    confusion = [
        {"actual": classes[label], "predicted": classes[place], "images": count}
        for label, place, count in cells_of(matrix)
    ] or [{"actual": "", "predicted": "", "images": 0}]
    return {"curves": curves, "errors": errors, "confusion": confusion}
