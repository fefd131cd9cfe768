"""The deviations from the paper, as the page shows them: this study's own, and those of docs/adr/0005-deviations.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import paper

FILE = Path("docs/adr/0005-deviations.md")


def is_as_long_as_the_papers(row: Mapping[str, Any]) -> bool:
    """Tells whether a network was trained for as many updates as the paper's of its family."""
    return bool(row["scores"]["updates"] == paper.UPDATES.get(row["family"]))


def is_trained_as_the_papers(row: Mapping[str, Any]) -> bool:
    """Tells whether a network was trained by the paper's recipe to its end."""
    return is_as_long_as_the_papers(row) and bool(row.get("is_the_papers_recipe"))


def of_study(results: Mapping[str, Any]) -> list[str]:
    """Returns in which of the great things the networks of a study differ from the paper's of their family."""
    found, rows = list[str](), results["rows"]
    if not results["data"]["official"]:
        archive = results["data"]["archive"]
        found.append(
            f"other data than the paper's: {results['data']['name']}"
            + (f" ({archive})" if archive else "")
        )
    for family in paper.UPDATES:
        some = [row for row in rows if row["family"] == family]
        wanted = {
            "updates": ({row["scores"]["updates"] for row in some}, paper.UPDATES[family]),
            "images a batch": ({row["global_batch_size"] for row in some}, paper.BATCH[family]),
        }
        for what, (ours, theirs) in wanted.items():
            if ours - {theirs}:
                said = ", ".join(f"{one:,}" for one in sorted(ours))
                found.append(f"{said} {what}; the paper: {theirs:,}")
    if others := sorted({row["precision"] for row in rows} - {"float32"}):
        found.append(f"{', '.join(others)}; the paper: float32, as far as is known")
    if others := sorted(
        {row["schedule"] for row in rows if not row["schedule"].startswith("schedules/paper-")}
    ):
        found.append(f"schedules of its own: {', '.join(others)}")
    return found


def deviations(path: Path = FILE) -> list[tuple[str, str]]:
    """Returns the lines of the table of deviations, ours and the paper's; a heading has no second part."""
    cells = [
        tuple(cell.strip().strip("*").replace("`", "") for cell in line.strip("| \n").split(" | "))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| ours |")
    ]
    return [(line[0].strip("| "), line[1] if len(line) > 1 else "") for line in cells]
