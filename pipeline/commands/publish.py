"""Sends a finished study to MLflow, pictures included; `make publish` does it again."""

from typing import Any

from infra.local import s3
from pipeline import command, params, paths
from pipeline.files import scratch
from pipeline.params import Study
from pipeline.report import charts, drawing
from pipeline.report.gathering import gather
from pipeline.report.saving import headlines
from pipeline.storage.objects import Storage
from pipeline.tracking import results as send
from pipeline.tracking.tracker import tolerant


def everything(study: Study, results: dict[str, Any], storage: Storage) -> None:
    """Publishes whatever MLflow lacks of a finished study; `results` is what the report shows."""
    tracker = send.tracker_of(study, storage)
    with scratch("pictures") as drawn:
        for row in results["rows"]:
            folder = drawn / row["name"]
            folder.mkdir()
            pictures = [
                drawing.png(charts.curve(row), folder / "curve.png"),
                paths.scores(row["name"]) / paths.METRICS,
            ]
            if row["confusion"] is not None:
                matrix = charts.confusion(results, row["name"])
                pictures.append(drawing.png(matrix, folder / "confusion.png"))
            send.row_result(
                tracker, row["name"], study.models[row["name"]], row["scores"], pictures
            )
        for name in study.tune:
            send.search_result(tracker, name, storage)
        picture = drawing.png(charts.errors(results), drawn / "errors.png")
        send.ensemble_result(tracker, params.digest(study), [picture])
    parent = tracker.study()
    document = study.model_dump(mode="json", include={"data", "tune", "ensemble", "evaluation"})
    parent.params({"study": study.study, "rows": len(study.models), **document})
    parent.metrics(headlines(results))
    parent.artifacts([params.PARAMS, paths.PAGE])
    parent.finished()


def main() -> None:
    """Publishes the study on disk."""
    study = params.load()
    with tolerant():
        everything(study, gather(study), s3.connect())
        print("MLflow is complete: `make ui` shows it")


if __name__ == "__main__":
    command.main(main)
