"""The kinds of extras. A run's key depends on the files of the kinds it uses, not on this list."""

from collections.abc import Sequence
from typing import assert_never

from pipeline.data.feeding.batches import Batches
from pipeline.data.feeding.composed import Composed
from pipeline.data.feeding.composed import Extra as Applied
from pipeline.data.feeding.cutout import SquareEraser
from pipeline.data.feeding.erasing import BoxEraser
from pipeline.params import Cutout, Erasing, Extra


def with_extras(
    batches: Batches, extras: Sequence[Extra], *, seed: int, global_batch_size: int, rank: int,
    workers: int,
) -> Batches:  # fmt: skip
    """Returns batches with a row's extras applied; the batches themselves if it has none."""
    if not extras:
        return batches
    return Composed(
        batches, [_of(extra) for extra in extras], seed=seed, global_batch_size=global_batch_size,
        rank=rank, workers=workers,
    )  # fmt: skip


def _of(recipe: Extra) -> Applied:
    match recipe:
        case Cutout():
            return SquareEraser(recipe)
        case Erasing():
            return BoxEraser(recipe)
    assert_never(recipe)
