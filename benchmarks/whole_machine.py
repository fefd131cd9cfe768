"""How long the trainings of a study take on this machine, beside how long they took at 417fcd3.

At 417fcd3 they trained one after another on all cores; now they train side by side, each row with its
own threads. Measured on the quiet machine, or beside a loop on every core (`benchmarks.busy`). What
counts is the ratio of the two runs of a pair.

    python -m benchmarks.whole_machine quiet|busy [pairs]
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.busy import busy
from infra.local import s3
from pipeline.environment import SETTLED
from pipeline.params.study import Evaluation

REPO = Path(__file__).parents[1]
BEFORE = "417fcd3"
LIMIT_S = 1500
QUICK = "shape: cosine\nbase_lr: 0.1\ntotal_updates: {updates}\nwarmup: null\n"


def of_digits(document: dict[str, Any]) -> int:
    """417fcd3's digits study: five rows at 16x16; returns its updates."""
    return 200


def of_cifars_size(document: dict[str, Any]) -> int:
    """The same five rows at 32x32."""
    document["data"]["image_size_px"] = 32
    return 60


def of_three_rows(document: dict[str, Any]) -> int:
    """Three rows and 30 updates, since a busy machine is slow."""
    for name in ("plain-56", "resnet-56"):
        del document["models"][name]
    document["ensemble"]["members"] = ["plain-20", "resnet-20"]
    return 30


def tree(commit: str | None, target: Path, change: Callable[[dict[str, Any]], int]) -> list[str]:
    """Puts the code of a commit (None: the working tree) and a study into a folder; returns the rows."""
    if commit is None:
        files = subprocess.run(
            ["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in files:
            if (REPO / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / name, target / name)
    else:
        target.mkdir()
        archive = subprocess.run(
            ["git", "archive", commit], cwd=REPO, capture_output=True, check=True
        )
        subprocess.run(["tar", "x", "-C", target], input=archive.stdout, check=True)
    (target / ".venv").symlink_to((REPO / ".venv").resolve())
    os.utime(target / "requirements.lock", (0, 0))  # `make` there leaves the environment as it is
    subprocess.run(["git", "init", "-q", target], check=True)
    old = subprocess.run(
        ["git", "show", f"{BEFORE}:params.yaml"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(old.stdout)
    updates = change(document)
    (target / "schedules/bench.yaml").write_text(QUICK.format(updates=updates))
    for row in document["models"].values():
        row["schedule"] = "schedules/bench.yaml"
        if commit is None:
            row |= {"threads": 1, "extras": []}
    document["tune"]["model"] = "resnet-20"
    if commit is None:
        document["claims"] = []
        document["tune"] = {"resnet-20": document["tune"]}
        document["data"]["duplicates_pct"] = 1.0
        known, old = Evaluation.model_fields, document["evaluation"]
        document["evaluation"] = {name: old[name] for name in old if name in known}
    with (target / "params.yaml").open("w") as file:
        yaml.dump(document, file)
    for folder in ("runs", "scores", "tuned"):
        shutil.rmtree(target / folder, ignore_errors=True)
    return list(document["models"])


def seconds_of(commit: str | None, change: Callable[[dict[str, Any]], int], folder: Path,
               around: Callable[[], AbstractContextManager[object]]) -> float:  # fmt: skip
    """Returns the seconds that all trainings of a study take with the code of a commit."""
    study, state = folder / (commit or "now"), folder / f"state-{commit or 'now'}"
    rows = tree(commit, study, change)
    environ = {
        n: v for n, v in os.environ.items() if n not in (SETTLED, "STUDY_S3", "GOMP_SPINCOUNT")
    }
    environ |= {"STUDY_STATE_DIR": str(state)}
    if commit:
        environ[SETTLED] = "1"  # the virtual environment's hook is newer than that code
        environ.pop("AWS_SHARED_CREDENTIALS_FILE", None)
        environ.pop("AWS_CONFIG_FILE", None)

    def run(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=study, env=environ, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    run("stages.fetch")
    run("stages.prepare")
    run("infra.local", "up")
    with around():
        began = time.monotonic()
        if commit is None:
            run("stages.handover")
        else:
            for row in rows:
                run("stages.train", row)
        seconds = time.monotonic() - began
    run("infra.local", "down")
    return seconds


def compare(what: str, change: Callable[[dict[str, Any]], int], pairs: int,
            around: Callable[[], AbstractContextManager[object]]) -> tuple[float, float]:  # fmt: skip
    """Prints pairs of seconds; returns the median ratio and the median seconds now."""
    ratios, times = [], []
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            before = seconds_of(BEFORE, change, Path(folder), around)
            now = seconds_of(None, change, Path(folder), around)
        ratios.append(now / before)
        times.append(now)
        print(f"{what}, pair {pair + 1}: {before:.1f} s at {BEFORE}, {now:.1f} s now: "
              f"{now / before:.2f}", flush=True)  # fmt: skip
    print(f"{what}: {statistics.median(ratios):.2f} of {BEFORE}'s time (median of {pairs})")
    return statistics.median(ratios), statistics.median(times)


def main() -> None:
    """Compares as the command line says."""
    how, pairs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    if how == "quiet":
        compare("digits study, quiet", of_digits, pairs, nullcontext)
        compare("CIFAR's size, quiet", of_cifars_size, pairs, nullcontext)
        return
    with tempfile.TemporaryDirectory() as folder:
        quiet = seconds_of(None, of_three_rows, Path(folder), nullcontext)
    _, now = compare("three rows, 30 updates, busy", of_three_rows, pairs, busy)
    print(f"now: {quiet:.1f} s quiet, {now:.1f} s busy: {now / quiet:.2f} times")


if __name__ == "__main__":
    s3.state_dir()
    main()
