"""Sends to MLflow what it lacks of the study that report/report.json shows: `make publish`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from infra.local import s3
from pipeline import command, params, paths
from pipeline.errors import DataError
from pipeline.files import scratch
from pipeline.git import commit
from pipeline.params import Study
from pipeline.report import charts, drawing
from pipeline.report.saving import headlines, saved
from pipeline.storage.objects import Storage
from pipeline.tracking import results as send
from pipeline.tracking import unsent
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.waiting import limit_s, within

TIMES_SENT = 2  # weights are an artifact of their run, and a part of the registered model


def everything(study: Study, results: dict[str, Any], storage: Storage) -> None:
    """Publishes whatever MLflow lacks, and prints after each run how many are complete.

    Raises TrackingError where MLflow does not answer, and DataError at the end for rows that are of others and
    models that it did not take.
    """
    with within(limit_s()):
        tracker = Tracker(address := send.address_of(study), storage.upload, storage)
        unsent.send(address, tracker)
        tracker.settle()
        complete = tracker.complete()
    work: list[tuple[float, Callable[[], None]]] = []  # and how long each may take
    for row in results["rows"]:
        which = ("training", row["run_key"], str(row["instance"]))
        if (*which, send.digest_of_row(row["name"])) not in complete:
            send_row = partial(_row, tracker, study, results, row, storage)
            work.append((_limit_s(row["name"]), send_row))
    for name in study.tune:
        if not send.has_search(complete, name, storage):
            work.append((_limit_s(), partial(send.search_result, tracker, name, storage)))
    total = len(results["rows"]) + len(study.tune) + 1
    work.append((_limit_s(*study.models), partial(_study, tracker, study, results)))
    complete_now, refused = total - len(work), list[str]()
    for most_s, one in work:
        print(f"MLflow has {complete_now} of {total} runs", flush=True)
        try:
            with within(most_s):
                one()
            complete_now += 1
        except DataError as error:
            refused.append(str(error))
    print(f"MLflow has {complete_now} of {total} runs", flush=True)
    if refused:
        raise DataError("; ".join(refused))


def _limit_s(*rows: str) -> float:
    """Returns how long a run that sends the weights of these rows may take."""
    weights = [paths.run(name) / paths.WEIGHTS for name in rows]
    return limit_s(TIMES_SENT * sum(path.stat().st_size for path in weights if path.exists()))


def _row(
    tracker: Tracker, study: Study, results: dict[str, Any], row: dict[str, Any], storage: Storage
) -> None:
    name, pictures = row["name"], [paths.scores(row["name"]) / paths.METRICS]
    with scratch("pictures") as folder:
        if row["confusion"] is not None:
            matrix = charts.confusion(results, name)
            pictures.append(drawing.png(matrix, folder / "confusion.png"))
        network = next(one["name"] for one in results["rows"] if one["group"] == row["group"])
        send.row_result(
            tracker,
            study,
            name,
            row["group"],
            network,
            row["scores"],
            pictures,
            storage,
        )


def _study(tracker: Tracker, study: Study, results: dict[str, Any]) -> None:
    refused = None
    with scratch("pictures") as folder:
        picture = drawing.png(charts.errors(results), folder / "errors.png")
        try:
            send.ensemble_result(tracker, study, [picture])
        except DataError as error:
            refused = error
    parent = tracker.study()
    document = study.model_dump(mode="json", include={"data", "tune", "ensemble", "evaluation"})
    parent.params({"study": study.study, "rows": len(study.models), **document})
    parent.metrics(headlines(results))
    parent.tags({send.NOTE: (
        f"{results['claims_decided']} of {results['claims_of_the_paper']} claims of the paper decided; see the "
        f"artifact {paths.PAGE.name}. `dvc repro` at commit {commit()} with its params.yaml reruns this study."
    )})  # fmt: skip
    parent.artifacts([params.PARAMS, paths.PAGE])
    parent.status("FINISHED")
    tracker.supersede()
    if refused:
        raise refused


def main() -> None:
    """Publishes the study on disk."""
    study = params.load()
    results = saved()
    if set(study.models) != {row["name"] for row in results["rows"]}:
        raise DataError(f"{paths.REPORT} is of other rows than {params.PARAMS}: `dvc repro`")
    everything(study, results, s3.connect())


if __name__ == "__main__":
    command.main(main)
