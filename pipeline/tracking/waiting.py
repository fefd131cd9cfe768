"""Publishes from a stage, for a bounded time: whatever state MLflow's server is in."""

import os
import subprocess
import sys
import threading

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
    assert process.stdout is not None and process.stderr is not None
    said, complaints = list[str](), list[str]()
    readers = [
        threading.Thread(target=into.extend, args=(pipe,), daemon=True)
        for into, pipe in ((said, process.stdout), (complaints, process.stderr))
    ]
    for reader in readers:
        reader.start()
    why = ""
    try:
        if process.wait(limit_s):
            why = "".join(complaints[-1:]).strip().removeprefix("error: ")
    except subprocess.TimeoutExpired:
        why = f"it took longer than {limit_s:.0f} s"
    finally:
        process.kill()
        process.wait()
    for reader in readers:
        reader.join(1.0)
    done = said[-1].strip() if said else "MLflow did not answer"
    if why or process.returncode:
        why = why or f"exit status {process.returncode}"
        print(f"warning: {done}: {why}; `make publish` sends the rest", file=sys.stderr)
        return False
    print(done)
    return True
