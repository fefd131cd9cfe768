"""`make forget RUN=<key>`: forgets a training or a search, such as one that other code began."""

import re

from infra.local import s3
from pipeline import command
from pipeline.errors import ParamsError
from pipeline.execution.begun import forget, lock_of
from pipeline.execution.there import cluster
from pipeline.files import exclusively
from pipeline.storage.layout import MEASURING
from pipeline.training.identity import KEY_LENGTH


def main(key: str = "") -> None:
    """Deletes the checkpoints and results of a key."""
    if not re.fullmatch(f"[0-9a-f]{{{KEY_LENGTH}}}|{MEASURING}[0-9a-f]{{8}}", key):
        raise ParamsError(f"RUN: found {key!r}, wanted a key of {KEY_LENGTH} hexadecimal digits")
    if there := cluster():
        there.require_idle(key)
    with exclusively(lock_of(key), "this training or search"):
        print(f"{key}: {forget(key, s3.connect())} objects deleted")


if __name__ == "__main__":
    command.main(main)
