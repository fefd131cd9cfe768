"""What of a source counts: not how it is written, on no version of Python."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import source
from tests.conftest import REPO

TEXT = '''"""A docstring."""
from pipeline import errors
import os


def one(a, *, b: int = 1, c=None) -> "int":
    """Another."""
    # a comment
    x = f"{a!r:>{b}} and" " more" f"{c=}"
    return [x, (a,), b if a else -1.5e300, b"\\x00", ..., 1j, lambda *q, **k: {**k, "é": q[1:]}]


class Two(list):
    """A third."""

    async def three(self):
        match self:
            case [1, *rest] if (n := len(rest)) > 1:
                return n
        async with self as a, self as b:
            yield a @ b
'''
DIGEST = "785e1b0c53f3919e24f79a00012b60743742cb217916765f69f84e8a264b3fde"


def digest_of(text: str) -> str:
    return source.tree_digest(ast.parse(text))


def test_the_digest_of_a_text_is_the_same_on_every_python():
    assert digest_of(TEXT) == DIGEST


@pytest.mark.parametrize("one, other", [
    ("a = 1", "a=1 # as\n\n"),
    ("f(1, 2)", "f(\n    1,\n    2,\n)"),
    ("'a' 'b'", '"ab"'),
    ("x = ((1))", "x = 1"),
    ("def f():\n    '''what'''\n    return 1", "def f():\n  return 1"),
    ("class A:\n    'what'\n    b = 1", "class A:\n    b = 1"),
    ("f'{a}b' 'c'", "f'{a}bc'"),
    ("x = 0x10", "x = 16"),
])  # fmt: skip
def test_how_it_is_written_does_not_count(one: str, other: str):
    assert digest_of(one) == digest_of(other)


@pytest.mark.parametrize("one, other", [
    ("x = 1", "x = 2"),
    ("x = 1", "x = 1.0"),
    ("x = 1", "x = True"),
    ("x = (1,)", "x = (1)"),
    ("x = 'a'", "x = b'a'"),
    ("f(a, b)", "f(b, a)"),
    ("f(a, b=1)", "f(a, **b)"),
    ("a - (b - c)", "a - b - c"),
    ("f'{a!r}'", "f'{a!s}'"),
    ("if a:\n    b\nc", "if a:\n    b\n    c"),
    ("import a", "import b"),
    ("def f(): pass", "async def f(): pass"),
    ("{None: 1}", "{**a}"),
    ("x[1:]", "x[:1]"),
])  # fmt: skip
def test_what_it_says_counts(one: str, other: str):
    assert digest_of(one) != digest_of(other)


def other_pythons() -> list[str]:
    """Returns the other supported versions of Python that are on this machine."""
    found = []
    for version in ("3.11", "3.12", "3.13"):
        done = subprocess.run(
            [REPO / ".venv/bin/uv", "python", "find", "--system", "--no-python-downloads", version],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            found.append(done.stdout.strip())
    return found


def test_our_own_source_has_one_digest_on_every_python_that_is_here():
    code = (
        "import sys; sys.path.insert(0, 'pipeline'); import source; "
        "print(source.digest(source.needed('pipeline.training.run')))"
    )
    here = {
        subprocess.run(
            [python, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout
        for python in [sys.executable, *other_pythons()]
    }
    assert len(here) == 1


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_is_imported_counts_and_nothing_else(tmp_path: Path):
    root = write(
        tmp_path,
        pipeline__a="import numpy\nfrom pipeline import b\ndef f():\n    import pipeline.sub.c",
        pipeline__b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline import d",
        pipeline__sub__c="from pipeline.b import name",
        pipeline__d="", pipeline__e="from pipeline import a",
    )  # fmt: skip
    (root / "pipeline/.ipynb_checkpoints").mkdir()
    (root / "pipeline/.ipynb_checkpoints/a-checkpoint.py").write_text("x = 1")
    needed = source.needed("pipeline.a", root=root)
    assert sorted(needed) == ["pipeline.a", "pipeline.b", "pipeline.sub.c"]
    before = source.digest(needed, root)
    write(
        root,
        pipeline__d="x = 1",
        pipeline__b="# nothing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline import d",
    )
    assert source.digest(source.needed("pipeline.a", root=root), root) == before
    write(root, pipeline__sub__c="from pipeline.b import name\nx = 1")
    assert source.digest(source.needed("pipeline.a", root=root), root) != before
