"""What Git says about the running code."""

import subprocess
from pathlib import Path

CODE = ("pipeline", "stages", "schedules", "dvc.yaml")
PARAMS, STUDIES = "params.yaml", "studies"


def commit() -> str:
    """Returns the commit of the code, with `-dirty` added if code or parameters differ from it.

    A ready-made study of that commit as params.yaml does not count as a difference. Without Git it is
    "unknown".
    """
    try:
        head = _git("rev-parse", "HEAD").strip() or "unknown"
        dirty = _git("status", "--porcelain", "--", *CODE)
        if _git("status", "--porcelain", "--", PARAMS) and not _is_ready_made():
            dirty += PARAMS
    except FileNotFoundError:
        return "unknown"
    return head + ("-dirty" if dirty else "")


def _is_ready_made() -> bool:
    """Tells whether params.yaml is a committed ready-made study, but for its first line (`make params`)."""
    if not Path(PARAMS).exists():
        return False
    found = Path(PARAMS).read_text().splitlines()[1:]
    names = _git("ls-tree", "-r", "--name-only", "HEAD", "--", STUDIES).splitlines()
    return any(_git("show", f"HEAD:{name}").splitlines()[1:] == found for name in names)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout
