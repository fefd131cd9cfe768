"""A new user's way: every command of the README, in its order, in a fresh copy with a tiny study."""

import re
import subprocess
from pathlib import Path

import pytest

from infra.local import s3
from pipeline.storage.layout import project
from tests import pace
from tests.conftest import REPO, copy_study, outside

pytestmark = pytest.mark.integration
BLOCKS = re.findall(r"```sh\n(.*?)```", (REPO / "README.md").read_text(), re.S)
NOT_AGAIN = "make test "  # this is it
SEED = 1311  # no other test's: on the bucket that they share nothing is there of these trainings


def rows_of_the_readme(document: dict) -> None:
    models = {name: row | {"seed": SEED} for name, row in document["models"].items()}
    document["models"] = {"plain-20": models["plain-8"], "resnet-20": models["resnet-8"]}
    document["tune"]["resnet-8"]["model"] = "resnet-20"
    document["ensemble"] = {"members": ["plain-20", "resnet-20"]}


def test_the_readmes_commands_do_what_they_say(tmp_path: Path, own_state: Path):
    study = copy_study(tmp_path / "study", rows_of_the_readme)
    lines = [line for block in BLOCKS for line in block.splitlines()]
    assert NOT_AGAIN in "".join(lines)
    script = "\n".join(["set -ex", *(line for line in lines if not line.startswith(NOT_AGAIN))])
    done = subprocess.run(
        ["bash", "-c", script], cwd=study, env=outside(), capture_output=True, text=True,
        timeout=pace.hangs_after_s(300), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "where the time went" in done.stdout
    assert (study / "report/index.html").exists()
    assert "resnet-20: instance 2" in done.stdout
    assert s3.connect().keys(f"{project()}/dvc/")
