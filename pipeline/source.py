"""Which of our files a module needs, and a digest of them that comments and formatting do not change.

The digest is computed over the syntax tree: comments, docstrings, quotes, line breaks and redundant
parentheses do not affect it, and it is the same on every supported Python (`ast.dump` and `ast.unparse`
are not). An imported file counts whether or not Git tracks it; a file that no module imports does not.
"""

import ast
import hashlib
from collections.abc import Iterable, Set
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # what has statements in it
NOT_SAID = {"ctx", "kind", "type_comment"}  # fields of a syntax tree that are left out


def needed(
    *modules: str, root: Path = ROOT, packages: Set[str] = frozenset({"pipeline"}),
    leave: Set[str] = frozenset(),
) -> dict[str, Path]:  # fmt: skip
    """Returns, with their files, `modules` and what they import from `packages`, directly or not.

    Imports within functions count; those only for types (`if TYPE_CHECKING`) do not. The modules and
    packages in `leave` are neither searched nor returned.
    """
    found: dict[str, Path] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in found or module.split(".")[0] not in packages:
            continue
        if any(module == left or module.startswith(f"{left}.") for left in leave):
            continue
        path = file_of(module, root)
        if path is None:  # a name in a module, or a folder without an __init__
            continue
        found[module] = path
        todo += [module.rpartition(".")[0], *_read(path, path.stat().st_mtime_ns)[0]]
    return found


def file_of(module: str, root: Path = ROOT) -> Path | None:
    """Returns the file of a module or package; None if there is none."""
    path = root.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def digest(modules: Iterable[str], root: Path = ROOT) -> str:
    """Returns the sha256 of some modules' names and source, whatever the order of `modules`."""
    sha = hashlib.sha256()
    for module in sorted(set(modules)):
        path = file_of(module, root)
        assert path is not None, module
        sha.update(f"{module} {_read(path, path.stat().st_mtime_ns)[1]}\n".encode())
    return sha.hexdigest()


@cache
def _read(path: Path, changed_ns: int) -> tuple[tuple[str, ...], str]:
    """Returns what a file imports, and the digest of its tree."""
    tree = ast.parse(path.read_bytes())
    return tuple(sorted(_imports(tree))), tree_digest(tree)


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not (isinstance(node, ast.If) and _is_for_types(node.test)):
            todo += [statement for name in BLOCKS for statement in getattr(node, name, ())]
    return found


def _is_for_types(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def tree_digest(tree: ast.AST) -> str:
    """Returns the sha256 of a syntax tree without its docstrings."""
    words: list[str] = []
    _add(tree, words)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _add(value: object, words: list[str]) -> None:
    """Appends a tree as words: types, non-empty fields, constants.

    Empty fields are left out, since they differ between Python versions.
    """
    if isinstance(value, ast.AST):
        if isinstance(value, ast.JoinedStr):
            value = _joined(value)
        words.append(f"({type(value).__name__}")
        for name in value._fields:
            field = getattr(value, name, None)
            if field is None or field == [] or name in NOT_SAID:
                continue
            words.append(name)
            _add(field, words)
        words.append(")")
    elif isinstance(value, list):
        words.append("[")
        for item in value:
            if not _is_text_alone(item):
                _add(item, words)
        words.append("]")
    else:
        words.append(f"{type(value).__name__} {value!a}")


def _is_text_alone(node: object) -> bool:
    """Tells whether a statement is only a string: a docstring, or a string that serves as a comment."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _joined(text: ast.JoinedStr) -> ast.JoinedStr:
    """Returns an f-string with adjacent constant parts joined, which not every Python version does."""
    parts: list[ast.expr] = []
    for part in text.values:
        if isinstance(part, ast.Constant):
            if not part.value:
                continue
            if parts and isinstance(before := parts[-1], ast.Constant):
                parts[-1] = ast.Constant(str(before.value) + str(part.value))
                continue
        parts.append(part)
    return ast.JoinedStr(parts)
