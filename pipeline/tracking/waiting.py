"""Publishes from a stage, for a bounded time: whatever state MLflow's server is in."""

import os
import subprocess
import sys

from pipeline.command import TIMES

LIMIT_S = 20.0
COMMAND = (sys.executable, "-m", "pipeline.commands.publish")


def publish(limit_s: float = LIMIT_S) -> bool:
    """Runs `make publish` for at most `limit_s` seconds and prints what is left; tells whether nothing is."""
    environ = {name: value for name, value in os.environ.items() if name != TIMES}  # it is no stage
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=environ,
    )  # fmt: skip
    why = ""
    try:
        said, complaints = process.communicate(timeout=limit_s)
        if process.returncode:
            last = complaints.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
            why = last[0].removeprefix("error: ")
    except subprocess.TimeoutExpired:
        why = f"it took longer than {limit_s:.0f} s"
        process.kill()
        said, _ = process.communicate()
    finally:
        process.kill()
    done = (said.strip().splitlines() or ["MLflow did not answer"])[-1]
    if why:
        print(f"warning: {done}: {why}; `make publish` sends the rest", file=sys.stderr)
        return False
    print(done)
    return True
