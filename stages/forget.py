"""`make forget RUN=<key>`: forgets a training or a search, such as one that other code began."""

import re

from pipeline.errors import ParamsError
from pipeline.training.identity import KEY_LENGTH
from stages import stage, where


def main(key: str = "") -> None:
    """Deletes its checkpoints and outcomes."""
    if not re.fullmatch(f"[0-9a-f]{{{KEY_LENGTH}}}", key):
        raise ParamsError(f"RUN: found {key!r}, wanted a key of {KEY_LENGTH} hexadecimal digits")
    with where.alone(key, "this training or search"):
        print(f"{key}: {where.forget(key)} objects deleted")


if __name__ == "__main__":
    stage.main(main)
