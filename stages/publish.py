"""Sends a finished study to MLflow, pictures included; `make publish` does it once more."""

import tempfile
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.params import Study
from pipeline.report import figures
from pipeline.report.study import gather
from pipeline.tracking.publish import tolerant
from stages import stage, tracked

PAGE = Path("report/index.html")


def everything(study: Study, results: dict[str, Any]) -> None:
    """Publishes whatever MLflow lacks of a finished study; `results` is what the report shows."""
    tracker, classes = tracked.tracker_of(study), results["data"]["classes"]
    with tempfile.TemporaryDirectory() as scratch:
        for row in results["rows"]:
            folder = Path(scratch) / row["name"]
            folder.mkdir()
            pictures = [
                figures.png(figures.curve(row), folder / "curve.png"),
                Path("scores") / row["name"] / "metrics.json",
            ]
            if (matrix := row["scores"]["test_confusion"]) is not None:
                figure = figures.confusion(matrix, classes, row["name"])
                pictures.append(figures.png(figure, folder / "confusion.png"))
            tracked.row_result(
                tracker, row["name"], study.models[row["name"]], row["scores"], pictures
            )
        for name in study.tune:
            tracked.search_result(tracker, name)
        errors = figures.test_errors(results["groups"], results["rows"], results["ensemble"])
        picture = figures.png(errors, Path(scratch) / "errors.png")
        tracked.ensemble_result(tracker, params.digest(study), [picture])
    parent = tracker.study()
    document = study.model_dump(mode="json", include={"data", "tune", "ensemble", "evaluation"})
    parent.params({"study": study.study, "rows": len(study.models), **document})
    parent.metrics(headlines(results))
    parent.artifacts([params.PARAMS, PAGE])
    parent.finished()


def headlines(results: dict[str, Any]) -> dict[str, float]:
    """Returns the errors of each network, in the mean over its seeds, and of the ensemble."""
    found = {}
    for group in results["groups"]:
        for name in ("test_error_pct", "train_error_pct"):
            found[f"{name}.{group['name']}"] = group[name]["mean"]
    declared = results["ensemble"]["declared"]["test_error_pct"]
    return {**found, "test_error_pct.ensemble": declared}


def main() -> None:
    """Publishes the study on disk."""
    study = params.load()
    with tolerant():
        everything(study, gather(study))
        print("MLflow is complete: `make ui` shows it")


if __name__ == "__main__":
    stage.main(main)
