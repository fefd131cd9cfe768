"""`make paper`: writes every table of the report as LaTeX and every picture as PDF to report/paper/."""

import json

from pipeline import command, paths
from pipeline.errors import DataError
from pipeline.files import write
from pipeline.report import drawing
from pipeline.report.charts import charts
from pipeline.report.tables import tables


def main() -> None:
    """Writes the files."""
    if not paths.REPORT.exists():
        raise DataError(f"{paths.REPORT}: not found: `make study` writes it")
    results = json.loads(paths.REPORT.read_text(encoding="utf-8"))
    for table in tables(results):
        write(paths.PAPER / f"{table.name}.tex", table.latex())
    for name, chart in charts(results).items():
        write(paths.PAPER / f"{name}.pdf", drawing.pdf(chart))
    print(f"{paths.PAPER}: {len(list(paths.PAPER.iterdir()))} files")


if __name__ == "__main__":
    command.main(main)
