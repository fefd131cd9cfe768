"""A network's evaluation in parts, which one machine runs in turn or many machines at once.

For val and test the logits are kept, since ensembles need them; for training images only what scores
need.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.data.dataset import SPLITS, Dataset, Split
from pipeline.data.feeding.shards import Photos
from pipeline.evaluation import views
from pipeline.evaluation.outcomes import outcomes, softmax
from pipeline.evaluation.tables import LOGITS, SCALES, SINGLE, TRAIN, VIEWS, Table, Tables
from pipeline.models.predict import keep_freed_memory
from pipeline.models.weights import Trained
from pipeline.params import Precision, Row
from pipeline.progress import Progress


@dataclass(frozen=True, order=True)
class Part:
    """Adjacent shards of a split in a view, `first` to before `end`; a set in memory is one shard."""

    split: str
    view: str
    first: int
    end: int

    def of(self, data: Dataset) -> Split:
        """Returns the part's images."""
        split: Split = getattr(data, self.split)
        whole = not isinstance(split.images, Photos)
        return split if whole else split.of_shards(range(self.first, self.end))


def _tables(sides_px: Sequence[int] | None) -> Iterator[tuple[str, str]]:
    """Yields split and view of each table of an evaluation."""
    for split in SPLITS:
        for view in VIEWS if split == "test" and sides_px else (SINGLE,):
            yield split, view


def parts_of(data: Dataset, sides_px: Sequence[int] | None) -> list[Part]:
    """Returns the parts of an evaluation: every shard of every split and view."""
    found = []
    for split, view in _tables(sides_px):
        images = getattr(data, split).images
        count = len(images.shards) if isinstance(images, Photos) else 1
        found += [Part(split, view, number, number + 1) for number in range(count)]
    return found


def times_shown(view: str, sides_px: Sequence[int] | None) -> int:
    """Returns how many times an image counts in a view."""
    return len(sides_px or ()) if view == SCALES else 1


def evaluated(
    trained: Trained,
    data: Dataset,
    part: Part,
    crop_px: int | None,
    sides_px: Sequence[int] | None,
    precision: Precision,
    device: torch.device,
    advance: Callable[[int], object] = lambda images: None,
) -> Table:
    """Returns the table of a part; `advance` is called with each number of images done."""
    split = part.of(data)
    logits = views.logits(trained, part.view, split, crop_px, sides_px, precision, device, advance)
    if part.split != TRAIN:
        return {LOGITS: logits}
    return dict(vars(outcomes(softmax(logits), split.labels.numpy())))


def assembled(tables: Mapping[Part, Table]) -> Tables:
    """Returns the tables of whole splits, by split and view, joined from those of the parts."""
    found: dict[tuple[str, str], list[Table]] = {}
    for part in sorted(tables):
        found.setdefault((part.split, part.view), []).append(tables[part])
    return {
        which: {name: np.concatenate([table[name] for table in some]) for name in some[0]}
        for which, some in found.items()
    }


def all_parts(
    name: str,
    row: Row,
    sides: tuple[int, ...] | None,
    data: Dataset,
    trained: Trained,
    device: torch.device,
) -> Tables:
    """Evaluates a row on a device of this machine; returns its tables by split and view.

    The shards that are used at the same time are one part here, since the decoding processes start for each.
    """
    keep_freed_memory()
    torch.set_num_threads(row.threads)
    trained.model.to(device)
    tables = {}
    for split, view in _tables(sides):
        images = getattr(data, split).images
        windows = images.windows() if isinstance(images, Photos) else [range(1)]
        label = f"{name} on {split}" + ("" if view == SINGLE else f", {view.replace('_', ' ')}")
        total = times_shown(view, sides) * len(getattr(data, split))
        with Progress(label, total, "images") as progress:
            for window in windows:
                part = Part(split, view, window.start, window.stop)
                tables[part] = evaluated(
                    trained, data, part, row.crop_px, sides, row.precision, device, progress.advance
                )
    return assembled(tables)
