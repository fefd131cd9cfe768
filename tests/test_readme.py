"""The commands of the README and of the pages that it leads to exist, and what they name is there.

The README's own commands are executed by tests/integration/test_readme.py.
"""

import importlib.util
import re
import shlex

import pytest

from pipeline.params import read_yaml
from tests.conftest import REPO

PAGES = {page: page.read_text() for page in (REPO / "README.md", *(REPO / "docs").glob("*.md"))}
TEXT = "".join(PAGES.values())
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    for line in block.splitlines()
    if line.strip()
]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_exists(command: str):
    words = [word for word in command.split() if not re.match(r"[A-Z_]+=", word)]
    if words[0] in ("export", "git", "nvidia-cuda-mps-control", "read", "source"):
        return
    if words[:2] == ["python", "-c"]:
        compile(shlex.split(command)[2], command, "exec")
    elif words[0] == "make":
        assert words[1] in TARGETS
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    else:
        assert words[:2] in [
            ["dvc", verb] for verb in ("repro", "push", "pull", "metrics", "plots", "exp")
        ]
    stages, rows = read_yaml(REPO / "dvc.yaml")["stages"], read_yaml(REPO / "params.yaml")["models"]
    for stage, row in re.findall(r"(\w+)@([\w-]+)", command):
        assert stage in stages
        assert row in rows


def test_every_target_that_the_readme_names_exists():
    assert set(re.findall(r"`make ([a-z0-9-]+)", TEXT)) <= TARGETS


def test_every_file_that_the_readme_links_exists():
    for page, text in PAGES.items():
        for path in re.findall(r"\]\((?!http)([^)]+)\)", text):
            file, _, heading = path.partition("#")
            assert (page.parent / file).exists(), f"{page.name}: {path}"
            if heading:
                titles = re.findall(
                    r"^#+ (.+)$", (page.parent / file if file else page).read_text(), re.M
                )
                slugs = [
                    re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
                ]
                assert heading in slugs, f"{page.name}: {path}"


def test_every_source_that_the_architecture_names_exists():
    text = PAGES[REPO / "docs/architecture.md"]
    rooms = [REPO, REPO / "pipeline", REPO / "pipeline/training", REPO / "pipeline/evaluation"]
    for path in re.findall(r"`([a-z_/]+\.(?:py|yaml))`", text):
        assert any((room / path).exists() for room in (*rooms, REPO / "pipeline/execution")), path


def test_every_file_of_ours_that_a_page_names_exists():
    pages = [*PAGES, *(REPO / "docs/adr").glob("*.md")]
    for page in pages:
        found = re.findall(
            r"`((?:pipeline|stages|infra|tests|benchmarks)/[\w/.]+)`", page.read_text()
        )
        missing = [path for path in found if not (REPO / path).exists()]
        assert not missing, f"{page.name}: {missing}"


def test_every_ready_made_study_is_in_the_readme():
    for path in (REPO / "studies").glob("*.yaml"):
        assert f"| `{path.stem}`" in TEXT


def test_every_variable_of_ours_is_in_the_readme():
    named = set()
    for folder in ("pipeline", "stages", "infra"):
        for path in (REPO / folder).rglob("*.py"):
            named |= set(re.findall(r"\"(STUDY_[A-Z_0-9]+)\"", path.read_text()))
    assert named <= set(re.findall(r"STUDY_[A-Z_0-9]+", TEXT))
