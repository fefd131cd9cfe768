"""One maker at a time, of all hosts that share a bucket."""

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.storage.layout import project
from pipeline.storage.objects import Storage

TURNS = "turns"  # of the project, in the bucket
DEAD_S = 10.0  # who has had a turn for as long has died in it
EVERY_S = 0.2


def key_of(what: str) -> str:
    """Returns the key of the object of who has the turn at `what`."""
    return f"{project()}/{TURNS}/{hashlib.sha256(what.encode()).hexdigest()[:24]}"


@contextmanager
def turn(storage: Storage, what: str) -> Iterator[None]:
    """Waits until nobody else has the turn at `what`, and has it as long as the context lasts.

    Who has it has put an object where there was none, by a conditional put. In a store without (rclone), the last
    of several at the very same moment has it, and an earlier one may not see that: what they make must be looked
    at again. Raises StorageError.
    """
    key = key_of(what)
    mine = uuid.uuid4().hex.encode()
    others, since = None, time.monotonic()
    while True:
        if (now := storage.get(key)) is None and storage.put_new(key, mine):
            break
        if now != others:
            others, since = now, time.monotonic()
        elif now is not None and time.monotonic() - since > DEAD_S:
            storage.delete(key)
            continue
        time.sleep(EVERY_S)
    try:
        yield
    finally:
        storage.delete(key)
