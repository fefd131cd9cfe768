"""`make architecture`: the picture in docs/architecture.md, drawn from what the code imports.

An arrow means "imports"; arrows that follow from others are left out.
"""

import re
import sys
from pathlib import Path

import grimp

PAGE = Path("docs/architecture.md")
FENCE = re.compile(r"```mermaid\n.*?```", re.S)
HOMES = ("pipeline", "stages", "infra")


def room_of(module: str) -> str | None:
    """Returns the room (folder) that a module is in, or None if it lies directly in pipeline/."""
    home, *rest = module.split(".")
    if home != "pipeline":
        return home
    return f"{home}.{rest[0]}" if rest and Path(home, rest[0]).is_dir() else None


def imports() -> dict[str, set[str]]:
    """Returns which room imports which."""
    graph = grimp.build_graph(*HOMES, exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        if (room := room_of(module)) is None:
            continue
        others = {room_of(other) for other in graph.find_modules_directly_imported_by(module)}
        found.setdefault(room, set()).update(other for other in others if other and other != room)
    return found


def drawn(edges: dict[str, set[str]]) -> str:
    """Returns the graph in Mermaid's language, without the arrows that follow from others."""

    def reached(room: str) -> set[str]:
        return edges.get(room, set()).union(*(reached(other) for other in edges.get(room, ())))

    lines = ["```mermaid", "flowchart TD"]
    for room in sorted(edges):
        further = set[str]().union(*(reached(other) for other in edges[room]))
        lines += [f"    {room} --> {other}" for other in sorted(edges[room] - further)]
    return "\n".join([*lines, "```"])


def main() -> None:
    """Writes the picture, or with --check exits with an error if it is not up to date."""
    page = PAGE.read_text()
    new = FENCE.sub(drawn(imports()), page, count=1)
    if "--check" in sys.argv and new != page:
        sys.exit(f"error: {PAGE}: its picture does not match the imports: run `make architecture`")
    PAGE.write_text(new)


if __name__ == "__main__":
    main()
