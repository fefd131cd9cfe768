"""Stage `report`: our results beside the paper's on one page, and all of them in MLflow.

It waits for MLflow for 20 s at most; `make publish` sends the rest.
"""

from infra.local import s3
from pipeline import command, params, paths
from pipeline.report.gathering import gather
from pipeline.report.predicted import MOST_MISSED
from pipeline.report.saving import save
from pipeline.report.thumbnails import thumbnails
from pipeline.tracking.waiting import publish


def main() -> None:
    """Writes the report and publishes what MLflow lacks."""
    study, storage = params.load(), s3.connect()
    results = gather(study)
    photographs = storage if study.evaluation.scales_px else None
    missed = [image["place"] for image in results["missed_by_all"][:MOST_MISSED]]
    save(results, thumbnails(paths.ARRAYS, missed, photographs))
    publish()
    print(f"report: {paths.PAGE.resolve()}")
    print("curves, runs and models: `make ui`, then the address it prints")


if __name__ == "__main__":
    command.stage(main, params.load)
