"""Failures that MLflow's server did not take before their sender had to leave.

Whoever publishes next in this folder sends them: `report` and `make publish` know of results alone, so that the
runs of these trainings would be called killed for ever, or not be there.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Record
from pipeline.environment import state_dir
from pipeline.files import write_json
from pipeline.tracking.tracker import Address, Tracker


def _folder(address: Address) -> Path:
    whose = f"{Path.cwd()} {json.dumps(asdict(address))}"
    return state_dir() / "unsent" / hashlib.sha256(whose.encode()).hexdigest()[:16]


def keep(address: Address, line: Mapping[str, Any]) -> None:
    """Keeps what is known of a training that failed: a line as `pipeline.tracking.sending` reads it."""
    write_json(_folder(address) / f"{line['training']['key']}.json", line)


def send(address: Address, tracker: Tracker) -> None:
    """Sends what was kept; raises TrackingError."""
    for path in sorted(_folder(address).glob("*.json")):
        try:
            line = json.loads(path.read_text())
            history = [Record(**record) for record in line["history"]]
        except FileNotFoundError:  # another process has sent it
            continue
        except (ValueError, TypeError, KeyError):  # an earlier version's
            path.unlink(missing_ok=True)
            continue
        run = tracker.training(line["training"], history)
        run.history(history, line.get("usage", ()))
        run.status(line["status"])
        path.unlink(missing_ok=True)
