"""The networks of a study as claims see them: rows that differ only in their seed are one network."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.report.claims.inference import Errors
from pipeline.report.seeds import by_group, once_a_seed

CONVERGED_LEVEL = 0.5  # of chance's error: a converged network's training error is below it
CONVERGED_FALL = 0.02  # of chance's error: from one span of updates to the next it changes by less
LEVEL = "a training error"
LIMITS = {
    LEVEL: CONVERGED_LEVEL,
    "at the end": CONVERGED_FALL,
    "while the rate was high": CONVERGED_FALL,
}
HOT = 0.5  # of the highest learning rate: updates at this or more are those at a high rate
# of 110 layers and more: the recipe of the others with a warm-up
WITH_WARM_UP, WITHOUT_WARM_UP = "schedules/paper-cifar-110.yaml", "schedules/paper-cifar.yaml"
LEAST_REPORTS = 4  # in two such spans
CONVERGENCES = ("converged", "too few reports", "not converged")  # the worst last

Row = dict[str, Any]
Convergence = Literal["converged", "not converged", "too few reports"]
Wrong = Mapping[str, Mapping[str, NDArray[np.bool_]]]
"""By row and split or view ("train", "val", "test", "test_ten_crops"): which images are classified wrongly."""


@dataclass(frozen=True)
class Network:
    """A network under one recipe, its seeds' errors ("train", "test", ...) and their training curves.

    `comparable` is equal for rows that differ only in network, seed and what changes no result. `responses`
    are each seed's standard deviations by layer (figure 7), empty where they were not measured.
    """

    rows: Sequence[str]
    family: str
    block: str
    depth: int
    option: str
    comparable: str
    schedule: str
    updates: int
    parameters: int
    multiply_adds: int
    seeds: Sequence[int]
    errors: Mapping[str, Errors]
    histories: Sequence[Sequence[Row]]
    convergence: Convergence
    responses: Sequence[Sequence[float]] = ()
    lacks: str = ""  # why it has not converged

    @property
    def name(self) -> str:
        """The name of its first row."""
        return self.rows[0]

    @property
    def is_converged(self) -> bool:
        """Tells whether all of its seeds have converged."""
        return self.convergence == "converged"

    @property
    def is_plain(self) -> bool:
        """Tells whether it has no shortcuts."""
        return self.block == "plain"


def networks_of(rows: Sequence[Row], wrong: Wrong, chance_pct: float) -> list[Network]:
    """Returns the networks in the order of their first rows."""
    return [_network(some, wrong, chance_pct) for some in by_group(rows)]


def _network(rows: Sequence[Row], wrong: Wrong, chance_pct: float) -> Network:
    rows = once_a_seed(rows)
    first = rows[0]
    errors = {}
    for view in wrong[first["name"]]:
        images = np.stack([wrong[row["name"]][view] for row in rows])
        errors[view] = Errors(images.sum(axis=1), images.shape[1], images)
    return Network(
        rows=[row["name"] for row in rows],
        family=first["family"],
        block=first["block"],
        depth=first["depth"],
        option=first["option"],
        comparable=first["comparable"],
        schedule=first["schedule"],
        updates=first["scores"]["updates"],
        parameters=first["parameters"],
        multiply_adds=first["multiply_adds"],
        seeds=[row["seed"] for row in rows],
        errors=errors,
        histories=[row["history"] for row in rows],
        convergence=max(
            (convergence_of(row["history"], chance_pct) for row in rows), key=CONVERGENCES.index
        ),
        responses=[row["responses"] for row in rows if row["responses"]],
        lacks=lacks([row["history"] for row in rows], chance_pct),
    )


def convergence_of(history: Sequence[Row], chance_pct: float) -> Convergence:
    """Tells whether a training curve has come down and leveled off: the same rule for every network.

    Its training error over the last eighth of the updates is below half of chance's error, and at most 2 % of
    chance's error from that of the eighth before. A curve also flattens because the rate has fallen, so the
    same must hold of the last quarter of the updates at a high rate (half of the highest, or more) and the
    quarter before. Curves with fewer than four reports in either pair of spans do not say.
    """
    missed = _missed(history, chance_pct)
    return "too few reports" if missed is None else "not converged" if missed else "converged"


def _missed(history: Sequence[Row], chance_pct: float) -> dict[str, float] | None:
    """Returns what a curve shows where it misses a limit of the rule, in percent or points; None if too few reports say."""
    pairs = [_spans(history, 0.75, 0.875), _spans(_hot(history), 0.5, 0.75)]
    if any(len(before) + len(end) < LEAST_REPORTS or not before for before, end in pairs):
        return None
    falls = [float(np.mean(before) - np.mean(end)) for before, end in pairs]
    shown = zip(LIMITS, [float(np.mean(pairs[0][1])), *falls], strict=True)
    # so written, what is no number misses every limit
    return {what: value for what, value in shown if not abs(value) < LIMITS[what] * chance_pct}


def lacks(histories: Sequence[Sequence[Row]], chance_pct: float) -> str:
    """Returns by how much the seeds of a network have not converged, "" if they have or nothing says it."""
    late = [missed for history in histories if (missed := _missed(history, chance_pct))]
    said = list[str]()
    for what in LIMITS:
        if values := [missed[what] for missed in late if what in missed]:
            worst = max(values, key=abs)
            moved = f"{'fell' if worst > 0 else 'rose'} by {abs(worst):.1f} points {what}"
            said.append(f"{what} of {worst:.0f} %" if what == LEVEL else moved)
    seeds = f"{len(late)} of {len(histories)} seeds: " if 0 < len(late) < len(histories) else ""
    return seeds + ", ".join(said)


def longest_interval(history: Sequence[Row]) -> int:
    """Returns the most updates between two reports with which a curve like this would say whether it converged."""
    shortest = min(history[-1]["update"] / 4, _hot(history)[-1]["update"] / 2)  # pair of spans
    return max(1, int(shortest // LEAST_REPORTS))


def _hot(history: Sequence[Row]) -> list[Row]:
    """Returns the reports at a high learning rate."""
    highest = max(line["lr"] for line in history)
    return [line for line in history if line["lr"] >= HOT * highest]


def _spans(history: Sequence[Row], first: float, second: float) -> tuple[list[float], list[float]]:
    """Returns the training errors between two shares of a history's updates, and those after the second."""
    last = history[-1]["update"]
    spans = ((first, second), (second, 1.0))
    before, end = (
        [line["train_error_pct"] for line in history if low < line["update"] / last <= high]
        for low, high in spans
    )
    return before, end


def updates_to(history: Sequence[Row], error_pct: float) -> float | None:
    """Returns after how many updates the training error is first at `error_pct`, interpolated.

    None if it never is, or if it is there at the first report already.
    """
    for before, line in itertools.pairwise(history):
        if before["train_error_pct"] <= error_pct:
            return None
        if line["train_error_pct"] <= error_pct:
            fall = before["train_error_pct"] - line["train_error_pct"]
            share = (before["train_error_pct"] - error_pct) / fall
            return float(before["update"] + share * (line["update"] - before["update"]))
    return None


def comparable(networks: Sequence[Network]) -> list[Network]:
    """Returns the networks of the recipe that most of them have; of equally many the first one's."""
    counts: dict[str, int] = {}
    for network in networks:
        counts[network.comparable] = counts.get(network.comparable, 0) + 1
    main = max(counts, key=lambda recipe: counts[recipe]) if counts else ""
    return [network for network in networks if network.comparable == main]
