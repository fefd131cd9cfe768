"""Stage `report`: our results beside the paper's on one page, and all of them in MLflow."""

from infra.local import s3
from pipeline import command, params, paths
from pipeline.commands import publish
from pipeline.files import write, write_json
from pipeline.report import page
from pipeline.report.gathering import gather
from pipeline.tracking.tracker import tolerant


def main() -> None:
    """Writes the report and publishes what MLflow lacks."""
    study = params.load()
    results = gather(study)
    write(paths.PAGE, page.render(results))
    write_json(paths.REPORT, results)
    with tolerant():
        publish.everything(study, results, s3.connect())
    print(f"report: {paths.PAGE.resolve()}")
    print("curves, runs and models: `make ui`, then the address it prints")


if __name__ == "__main__":
    command.main(main)
