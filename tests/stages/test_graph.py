"""dvc.yaml tells the truth: declared dependencies and parameters are those that are used."""

import re
import subprocess
import sys

import pytest

from pipeline import source
from pipeline.params import read_yaml
from stages import check
from tests.conftest import REPO

STAGES = read_yaml(REPO / "dvc.yaml")["stages"]
NAMES = sorted(STAGES)


def body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


LOADS = """
import importlib, pathlib, sys
importlib.import_module("stages." + sys.argv[1])
for name, module in list(sys.modules.items()):
    if name.split(".")[0] in ("pipeline", "stages", "infra") and getattr(module, "__file__", None):
        if pathlib.Path(module.__file__).stat().st_size:
            print(name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", check.STAGES)
def test_a_stage_depends_on_every_module_that_it_loads(name: str):
    assert f"state/code/{name}" in body(name)["deps"]
    needed = source.needed(f"stages.{name}", packages=check.OURS)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, name], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) - needed.keys() == set()


def test_every_stage_but_those_that_always_run_depends_on_its_code():
    always = {name for name in NAMES if body(name).get("always_changed")}
    assert always == {"check", "handover"}
    assert set(check.STAGES) == set(NAMES) - always
    outs = [out if isinstance(out, str) else next(iter(out)) for out in body("check")["outs"]]
    written = [out for out in outs if out.startswith("state/code/")]
    assert written == [f"state/code/{name}" for name in check.STAGES]


def test_files_that_are_no_modules_are_named():
    beside = {
        path.relative_to(REPO).as_posix()
        for path in (REPO / "pipeline/report").iterdir()
        if path.is_file() and path.suffix != ".py"
    }
    assert beside <= set(body("report")["deps"])


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("check", "fetch", "handover")]
)
def test_declared_params_are_the_sections_that_a_stage_uses(name: str):
    source = (REPO / f"stages/{name}.py").read_text()
    used = set(re.findall(r"\bstudy\.([a-z_]+)", source)) - {"execution"}
    if "params.row_of(study" in source or "Wanted(study" in source:
        used.add("models")
    if ".search(name)" in source:
        used.add("tune")
    if "gather(study)" in source:
        for module in ("gathering.py", "claims/asking.py"):
            library = (REPO / "pipeline/report" / module).read_text()
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
        assert len(lines) <= 60, name
