"""How long a study will take: each training from its speed, and all of them on given nodes."""

import heapq
from collections.abc import Sequence
from math import ceil

from pipeline.params import Row
from pipeline.training.speed import Speed

# From the start of a training's process on a node to its first update: imports, data, the network.
# Measured at 4 s on two quiet cores; it matters for short trainings only.
START_S = 4.0
# The same in a worker that has trained before: 0.8 to 1.4 s.
WARM_START_S = 1.0


def training_s(row: Row, updates: int, speed: Speed, start_s: float) -> float:
    """Returns the predicted seconds of a training from its start to its last checkpoint."""
    reports = ceil(updates / row.report_every_updates)
    return start_s + updates * speed.update_s + reports * speed.report_s


def makespan_s(trainings: Sequence[tuple[int, float]], places: int) -> float:
    """Returns the seconds until the last (workers, seconds) ends, if started in order as places allow.

    Returns infinity if a training needs more places than there are: it never starts.
    """
    if any(workers > places for workers, _ in trainings):
        return float("inf")
    running: list[tuple[float, int]] = []
    now, free = 0.0, places
    for workers, seconds in trainings:
        while free < workers:
            now, ended = heapq.heappop(running)
            free += ended
        heapq.heappush(running, (now + seconds, workers))
        free -= workers
    return max((end for end, _ in running), default=0.0)
