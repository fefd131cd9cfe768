"""dvc.yaml tells the truth: declared dependencies and parameters are those that are used."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.params import read_yaml
from tests.conftest import REPO

STAGES = read_yaml(REPO / "dvc.yaml")["stages"]
PACKAGES = ("pipeline", "stages", "infra")
NAMES = sorted(STAGES)


def body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def imports(path: Path) -> set[str]:
    """Returns our modules that a file imports, at any level of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in found if module.split(".")[0] in PACKAGES}


def files_of(module: str) -> list[Path]:
    path = REPO.joinpath(*module.split("."))
    own = [path.with_suffix(".py"), path / "__init__.py"]
    return [file for file in own if file.is_file() and file.stat().st_size]


def closure(start: Path) -> set[str]:
    """Returns all files of ours that a file needs."""
    found, todo = set(), [start]
    while todo:
        file = todo.pop()
        if file.relative_to(REPO).as_posix() in found:
            continue
        found.add(file.relative_to(REPO).as_posix())
        todo += [needed for module in imports(file) for needed in files_of(module)]
    return found


# what a message or a lock says changes no result
NO_RESULT = (
    "pipeline/environment.py",
    "pipeline/errors.py",
    "pipeline/machine.py",
    "pipeline/files.py",
    "pipeline/progress.py",
    "stages/__init__.py",
    "pipeline/__init__.py",
)


@pytest.mark.parametrize("name", NAMES)
def test_declared_code_contains_all_that_a_stage_imports(name: str):
    declared = [dep for dep in body(name).get("deps", ()) if dep.startswith(PACKAGES)]
    if body(name).get("always_changed"):
        assert name in ("check", "handover")
        assert declared == []
        return
    undeclared = {
        file
        for file in closure(REPO / f"stages/{name}.py")
        if file not in NO_RESULT
        and not any(file == dep or file.startswith(f"{dep}/") for dep in declared)
    }
    assert undeclared == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("check", "handover")])
def test_declared_params_are_the_sections_that_a_stage_uses(name: str):
    source = (REPO / f"stages/{name}.py").read_text()
    used = set(re.findall(r"\bstudy\.([a-z_]+)", source)) - {"execution"}
    if "params.row_of(study" in source or "where.job_of(study" in source:
        used.add("models")
    if "where.search_named(study" in source:
        used |= {"models", "tune"}
    if "gather(study)" in source:
        library = (REPO / "pipeline/report/study.py").read_text()
        used |= set(re.findall(r"\bstudy\.([a-z_]+)", library))
    used -= {"study"} if name == "train" else set()
    declared = {entry.split(".")[0] for entry in body(name)["params"]}
    assert used == declared


def test_no_stage_depends_on_where_it_runs():
    for name in NAMES:
        assert not [
            entry for entry in body(name).get("params", ()) if entry.startswith("execution")
        ]


def test_commands_carry_no_address_and_no_secret():
    for name in NAMES:
        assert re.fullmatch(r"exec python -m stages\.[a-z]+( \$\{key\})?", body(name)["cmd"])


def test_no_out_lies_inside_another():
    outs = []
    for name in NAMES:
        for kind in ("outs", "metrics"):
            for out in body(name).get(kind, ()):
                outs.append(out if isinstance(out, str) else next(iter(out)))
    assert not [(a, b) for a in outs for b in outs if a != b and b.startswith(f"{a}/")]


def test_every_stage_file_is_short():
    for name in NAMES:
        lines = (REPO / f"stages/{name}.py").read_text().splitlines()
        assert len(lines) <= 90, name
