"""Stage `report`: ours beside the paper's, on one page, and all of it in MLflow."""

from pathlib import Path

from pipeline import params
from pipeline.files import write, write_json
from pipeline.report import page
from pipeline.report.study import gather
from pipeline.tracking.publish import tolerant
from stages import publish, stage


def main() -> None:
    """Writes the report and publishes what MLflow lacks."""
    study = params.load()
    results = gather(study)
    write(publish.PAGE, page.render(results))
    write_json(Path("report/report.json"), results)
    with tolerant():
        publish.everything(study, results)
    print(f"report: {publish.PAGE.resolve()}")
    print("curves, runs and models: `make ui`, then the address it prints")


if __name__ == "__main__":
    stage.main(main)
