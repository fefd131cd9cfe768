"""The deviations from the paper, as the page shows them: read from docs/adr/0005-deviations.md."""

from pathlib import Path

FILE = Path("docs/adr/0005-deviations.md")


def deviations(path: Path = FILE) -> list[tuple[str, str]]:
    """Returns the lines of the table of deviations, ours and the paper's; a heading has no second part."""
    cells = [
        tuple(cell.strip().strip("*").replace("`", "") for cell in line.strip("| \n").split(" | "))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| ours |")
    ]
    return [(line[0].strip("| "), line[1] if len(line) > 1 else "") for line in cells]
