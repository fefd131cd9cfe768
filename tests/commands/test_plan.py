"""Predicted times, by arithmetic that can be checked by hand."""

from collections.abc import Callable

import pytest

from pipeline.cluster import client
from pipeline.commands import makespan
from pipeline.params import Row
from pipeline.training.speed import Speed, what_costs


def test_a_training_is_its_start_its_updates_and_its_reports(row: Callable[..., Row]):
    seconds = makespan.training_s(row(report_every_updates=4), 10, Speed(0.5, 2.0), 7.0)
    assert seconds == 7.0 + 10 * 0.5 + 3 * 2.0  # reports after 4, 8 and 10


@pytest.mark.parametrize(
    ("trainings", "places", "seconds"),
    [
        ([(1, 3.0)] * 6, 1, 18.0),
        ([(1, 3.0)] * 6, 2, 9.0),
        ([(1, 4.0), (1, 1.0), (2, 2.0)], 2, 6.0),  # the pair waits for the longer
        ([(1, 4.0), (1, 1.0), (1, 2.0)], 2, 4.0),
        ([(2, 3.0), (1, 1.0)], 2, 4.0),  # beside a pair there is no place
        ([(3, 1.0)], 2, float("inf")),
        ([], 2, 0.0),
    ],
)
def test_makespan(trainings: list[tuple[int, float]], places: int, seconds: float):
    assert makespan.makespan_s(trainings, places) == seconds


def test_places_are_counted_node_by_node():
    shapes = [{"CPU": 3.0, "GPU": 1.0}, {"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}]
    assert client.places(shapes, {"CPU": 2, "GPU": 0}) == 1 + 4 + 4
    assert client.places(shapes, {"CPU": 2, "GPU": 0.25}) == 1 + 0 + 4


def test_rows_that_differ_in_their_seed_cost_alike(row: Callable[..., Row]):
    assert what_costs(row(seed=1)) == what_costs(row(seed=2))
    assert what_costs(row()) != what_costs(row(global_batch_size=64))
