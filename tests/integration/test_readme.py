"""A new user's way: every command of the README, in its order, with a tiny study."""

import re
import subprocess
from pathlib import Path

import pytest

from pipeline.storage.layout import project
from pipeline.storage.objects import Storage
from tests import pace
from tests.conftest import REPO, outside

pytestmark = pytest.mark.integration
BLOCKS = re.findall(r"```sh\n(.*?)```", (REPO / "README.md").read_text(), re.S)
FIRST, NOT_AGAIN = (
    "make study ",
    "make test ",
)  # the shared study is made by the first; this is the second


def test_the_readmes_commands_do_what_they_say(study: Path, built: Path, storage: Storage):
    first, second, *lines = [line for block in BLOCKS for line in block.splitlines()]
    assert first.startswith(FIRST) and second.startswith(NOT_AGAIN)
    assert "where the time went" in (built / "said").read_text()
    assert (study / "report/index.html").exists()
    script = "\n".join(["set -ex", *lines]).replace("resnet-20", "resnet-8")
    done = subprocess.run(
        ["bash", "-c", script], cwd=study, env=outside(), capture_output=True, text=True,
        timeout=pace.hangs_after_s(300), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resnet-8: instance 2" in done.stdout
    assert storage.keys(f"{project()}/dvc/")
