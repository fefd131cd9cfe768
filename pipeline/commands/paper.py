"""`make paper`: writes every table of the report as LaTeX and every picture as PDF to report/paper/."""

from pipeline import command, paths
from pipeline.files import write
from pipeline.report import drawing
from pipeline.report.charts import charts
from pipeline.report.saving import saved
from pipeline.report.tables import tables


def main() -> None:
    """Writes the files."""
    results = saved()
    for table in tables(results):
        write(paths.PAPER / f"{table.name}.tex", table.latex())
    for name, chart in charts(results).items():
        write(paths.PAPER / f"{name}.pdf", drawing.pdf(chart))
    print(f"{paths.PAPER}: {len(list(paths.PAPER.iterdir()))} files")


if __name__ == "__main__":
    command.main(main)
