"""What Git says about the running code."""

import subprocess
from pathlib import Path

CODE = ("pipeline", "stages", "schedules", "dvc.yaml")
PARAMS, STUDIES = "params.yaml", "studies"


def commit() -> str:
    """Returns the commit of the code, with `-dirty` added if code or parameters differ from it.

    A ready-made study of that commit as params.yaml does not count as a difference.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    dirty = git("status", "--porcelain", "--", *CODE)
    if git("status", "--porcelain", "--", PARAMS):
        committed = git("ls-tree", "-r", "HEAD", "--format=%(objectname)", "--", STUDIES).split()
        dirty += "" if Path(PARAMS).exists() and git("hash-object", PARAMS) in committed else PARAMS
    return (git("rev-parse", "HEAD") or "unknown") + ("-dirty" if dirty else "")
