"""Runs work in parts with Ray Data, on this machine or on all nodes of a cluster."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import ray.data

from pipeline import errors
from pipeline.errors import StudyError

Part = dict[str, Any]


def done(parts: Sequence[Part], work: Any, **options: Any) -> Iterator[Part]:
    """Yields what `work` returns for each part as it is done; `options` are those of Ray's map.

    Raises RayError if Ray fails, so that the caller can try again. An error of ours that `work` returned
    (`failed`) is raised here unchanged; Ray would wrap an error that `work` raised.
    """
    if not parts:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items(list(parts), override_num_blocks=len(parts))
    for row in dataset.map(work, **options).iter_rows():
        if kind := row.get("error"):
            raise getattr(errors, kind, StudyError)(row["text"])
        yield row


def failed(error: StudyError) -> Part:
    """Returns an error of ours as a part's result."""
    return {"error": type(error).__name__, "text": str(error)}
