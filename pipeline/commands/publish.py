"""Sends a finished study to MLflow, pictures included; `make publish` does it again."""

from typing import Any

from infra.local import s3
from pipeline import command, params, paths
from pipeline.files import scratch
from pipeline.params import Study
from pipeline.report import figures
from pipeline.report.gathering import gather
from pipeline.storage.objects import Storage
from pipeline.tracking import results as send
from pipeline.tracking.tracker import tolerant


def everything(study: Study, results: dict[str, Any], storage: Storage) -> None:
    """Publishes whatever MLflow lacks of a finished study; `results` is what the report shows."""
    tracker, classes = send.tracker_of(study, storage), results["data"]["classes"]
    with scratch("pictures") as drawn:
        for row in results["rows"]:
            folder = drawn / row["name"]
            folder.mkdir()
            pictures = [
                figures.png(figures.curve(row), folder / "curve.png"),
                paths.scores(row["name"]) / paths.METRICS,
            ]
            if (matrix := row["scores"]["test_confusion"]) is not None:
                figure = figures.confusion(matrix, classes, row["name"])
                pictures.append(figures.png(figure, folder / "confusion.png"))
            send.row_result(
                tracker, row["name"], study.models[row["name"]], row["scores"], pictures
            )
        for name in study.tune:
            send.search_result(tracker, name, storage)
        errors = figures.test_errors(results["groups"], results["rows"], results["ensemble"])
        picture = figures.png(errors, drawn / "errors.png")
        send.ensemble_result(tracker, params.digest(study), [picture])
    parent = tracker.study()
    document = study.model_dump(mode="json", include={"data", "tune", "ensemble", "evaluation"})
    parent.params({"study": study.study, "rows": len(study.models), **document})
    parent.metrics(headlines(results))
    parent.artifacts([params.PARAMS, paths.PAGE])
    parent.finished()


def headlines(results: dict[str, Any]) -> dict[str, float]:
    """Returns the errors of each network, averaged over its seeds, and of the ensemble."""
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
        everything(study, gather(study), s3.connect())
        print("MLflow is complete: `make ui` shows it")


if __name__ == "__main__":
    command.main(main)
