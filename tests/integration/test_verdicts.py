"""The default study from other seeds and as another processor: the same verdicts, by a wide margin."""

import json
import subprocess
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.storage.objects import Storage
from tests import pace
from tests.conftest import REPO, copy_study, outside, read_params, write_params

LIMIT_S = 1800.0
MARGIN = 20.0  # points
OTHER_PROCESSOR = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}
pytestmark = [
    pytest.mark.integration,
    pytest.mark.trial,
    pytest.mark.timeout(pace.hangs_after_s(LIMIT_S)),
]


@pytest.mark.parametrize(
    "base, settings",
    [(100, {}), (200, {}), (300, {}), (400, {}), (500, {}), (600, OTHER_PROCESSOR)],
    ids=["100", "200", "300", "400", "500", "600-another-processor"],
)
def test_the_verdicts_are_those_of_the_committed_report(
    base: int, settings: dict[str, str], tmp_path: Path, storage: Storage
):
    study = copy_study(tmp_path / "study")
    (study / "params.yaml").unlink()
    subprocess.run(["make", "params", "STUDY=digits"], cwd=study, check=True, env=outside())
    document = read_params(study)
    for row in document["models"].values():
        row["seed"] += base
    write_params(study, document)
    done = subprocess.run(
        ["make", "study"], cwd=study, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, env=outside(**settings), timeout=pace.hangs_after_s(LIMIT_S),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found, committed = (json.loads((folder / paths.REPORT).read_text()) for folder in (study, REPO))
    wanted = [(one["claim"], one["verdict"]) for one in committed["verdicts"]]
    assert [(one["claim"], one["verdict"]) for one in found["verdicts"]] == wanted
    trained = {row["name"]: row["scores"]["train_error_pct"] for row in found["rows"]}
    deepest = {
        kind: [error for name, error in trained.items() if name.startswith(f"{kind}-44")]
        for kind in ("plain", "resnet")
    }
    print(base, {name: round(error, 1) for name, error in trained.items()})
    assert min(deepest["plain"]) - max(deepest["resnet"]) >= MARGIN
