"""Work in parts by Ray Data, on this machine or over all nodes of a cluster."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import ray.data

from pipeline import errors
from pipeline.errors import StudyError

Part = dict[str, Any]


def done(parts: Sequence[Part], work: Any, **options: Any) -> Iterator[Part]:
    """Yields what `work` returns for each part, as they are done; `options` are those of Ray's map.

    What Ray cannot do raises RayError, for the caller to begin again; an error of ours that `work`
    returned (`failed`) is raised here as it was: Ray would wrap it.
    """
    if not parts:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items(list(parts), override_num_blocks=len(parts))
    for row in dataset.map(work, **options).iter_rows():
        if kind := row.get("error"):
            raise getattr(errors, kind)(row["text"])
        yield row


def failed(error: StudyError) -> Part:
    """Returns an error of ours as a part's result."""
    return {"error": type(error).__name__, "text": str(error)}
