"""How slow this machine is now: a time-out means that something hangs, on any machine.

No test's verdict depends on speed; a time-out is a multiple of what a quiet machine of two cores would
need many times over, scaled by one factor that is measured when the tests start.
"""

import hashlib
import subprocess
import sys
import time
from functools import cache

QUIET_S = 0.45  # the work below on two quiet cores


@cache
def factor() -> float:
    """Returns how many times longer this machine takes than a quiet one; at least 1."""
    began = time.monotonic()
    for _ in range(3):
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
        hashlib.sha256(bytes(40_000_000)).digest()
    return max(1.0, (time.monotonic() - began) / QUIET_S)


def hangs_after_s(seconds: float) -> float:
    """Returns after how many seconds what takes `seconds` at the very most on a quiet machine hangs."""
    return seconds * factor()
