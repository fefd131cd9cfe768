"""What Git says about the running code."""

import subprocess

CODE = ("--porcelain", "--", "pipeline", "stages", "schedules", "params.yaml", "dvc.yaml")


def commit() -> str:
    """Returns the commit of the code, with `-dirty` added if code or parameters differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "HEAD") or "unknown") + ("-dirty" if git("status", *CODE) else "")
