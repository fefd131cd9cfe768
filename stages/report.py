"""Stage `report`: our results beside the paper's on one page, and all of them in MLflow."""

from infra.local import s3
from pipeline import command, params, paths
from pipeline.commands import publish
from pipeline.report.gathering import gather
from pipeline.report.predicted import MOST_MISSED
from pipeline.report.saving import save
from pipeline.report.thumbnails import thumbnails
from pipeline.tracking.tracker import tolerant


def main() -> None:
    """Writes the report and publishes what MLflow lacks."""
    study, storage = params.load(), s3.connect()
    results = gather(study)
    photographs = storage if study.evaluation.scales_px else None
    missed = [image["place"] for image in results["missed_by_all"][:MOST_MISSED]]
    save(results, thumbnails(paths.ARRAYS, missed, photographs))
    with tolerant():
        publish.everything(study, results, storage)
    print(f"report: {paths.PAGE.resolve()}")
    print("curves, runs and models: `make ui`, then the address it prints")


if __name__ == "__main__":
    command.main(main)
