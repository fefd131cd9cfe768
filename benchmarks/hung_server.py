"""How long a training takes with an MLflow that hangs, beside the same training with one that works.

A row of digits is trained afresh, for longer than the half minute after which curves are sent. The server that
hangs accepts every connection and never answers; the one that works is the SQLite file that is used by default.
The order changes from pair to pair. What counts is the median of the pairs' ratios.

    python -m benchmarks.hung_server [pairs] [updates]
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.whole_machine import LIMIT_S, tree
from pipeline.environment import BUCKET, CLUSTER, MLFLOW, SETTLED

ROW = "resnet-20"
OTHERS = (SETTLED, "STUDY_S3", MLFLOW, BUCKET, CLUSTER)  # servers that the user may have chosen


def main(pairs: str = "5", updates: str = "1000") -> None:
    """Prints both times of each pair, and the median ratio."""

    def change(document: dict[str, Any]) -> int:
        document["models"] = {name: document["models"][name] for name in (ROW, "plain-20")}
        document["ensemble"]["members"] = [ROW, "plain-20"]
        return int(updates)

    hangs = socket.create_server(("127.0.0.1", 0))  # the kernel accepts, and nobody answers
    hangs.settimeout(0)
    with tempfile.TemporaryDirectory() as folder, hangs:
        study = Path(folder) / "study"
        tree(None, study, change)
        own = {name: value for name, value in os.environ.items() if name not in OTHERS}
        own["STUDY_STATE_DIR"] = str(Path(folder) / "state")
        said = Path(folder) / "said"

        def run(*command: str, **more: str) -> None:
            # no pipe: its sender, which lives on for five seconds, keeps that open
            with said.open("w") as out:
                done = subprocess.run(
                    [sys.executable, "-m", *command], cwd=study, env={**own, **more}, stdout=out,
                    stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False,
                )  # fmt: skip
            assert done.returncode == 0, said.read_text()

        def seconds(afresh: str, **more: str) -> tuple[float, float]:
            began = time.monotonic()
            run("stages.train", ROW, STUDY_AGAIN=afresh, **more)
            stage = time.monotonic() - began
            facts = json.loads((study / "runs" / ROW / "model.json").read_text())
            return facts["train_seconds"], stage

        for command in (("stages.fetch",), ("stages.prepare",), ("infra.local", "up")):
            run(*command)
        servers: dict[str, dict[str, str]] = {
            "works": {},
            "hangs": {MLFLOW: f"http://127.0.0.1:{hangs.getsockname()[1]}"},
        }
        ratios: list[tuple[float, float]] = []
        try:
            for pair in range(int(pairs)):
                order = list(servers) if pair % 2 == 0 else list(servers)[::-1]
                took = {name: seconds(f"{name} {pair}", **servers[name]) for name in order}
                hangs.accept()  # raises BlockingIOError if the training was too short for its curve to be sent
                (training, stage), (training_hung, stage_hung) = took["works"], took["hangs"]
                ratios.append((training_hung / training, stage_hung / stage))
                print(
                    f"pair {pair + 1}: training {training:.1f} s, hung {training_hung:.1f} s: "
                    f"{ratios[-1][0]:.3f}; stage {stage:.1f} s, hung {stage_hung:.1f} s: {ratios[-1][1]:.3f}",
                    flush=True,
                )
        finally:
            run("infra.local", "down")
    training_ratio, stage_ratio = (statistics.median(some) for some in zip(*ratios, strict=True))
    print(f"median of {pairs}: training {training_ratio:.3f}, stage {stage_ratio:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
