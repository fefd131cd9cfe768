"""Whether data and study fit: the account of the data, and rows against what is prepared.

Asked by `prepare`, and of the rows by `check` too.
"""

import json
from typing import Any

from pipeline import params, paths
from pipeline.data.sources import account
from pipeline.errors import ParamsError
from pipeline.files import write_json
from pipeline.params import Study, TorchvisionNetwork, canonical_sha256


def recipe_of(study: Study) -> str:
    """Returns what tells whether prepared data are of this study's section `data`."""
    return canonical_sha256(study.data.model_dump(mode="json"))


def require_if_prepared(study: Study) -> None:
    """Raises ParamsError where a row does not fit the prepared data, if there are any of this study."""
    try:
        summary = json.loads(paths.DIGEST.read_text())
    except (FileNotFoundError, ValueError):
        return
    if summary.get("recipe") == recipe_of(study):
        require(study, summary)


def require(study: Study, summary: dict[str, Any]) -> None:
    """Raises ParamsError with a line for each batch that is larger than the training set, and for each
    network that wants colours of images that have none.
    """
    params.together(
        (lambda: _require_batches(study, summary), lambda: _require_colours(study, summary))
    )


def _require_colours(study: Study, summary: dict[str, Any]) -> None:
    channels = shape[-1] if (shape := summary["image_shape"]) else 3  # photographs have three
    rows = [
        name for name, row in study.models.items() if isinstance(row.network, TorchvisionNetwork)
    ]
    if rows and channels != 3:
        raise ParamsError(
            f"params.yaml: models.{rows[0]}.network: torchvision's networks take three channels, and the "
            f"images have {channels}: take family cifar or imagenet{params.also_in(rows)}"
        )


def _require_batches(study: Study, summary: dict[str, Any]) -> None:
    count = summary["images"]["train"]
    too_large: dict[int, list[str]] = {}
    for name, row in study.models.items():
        if row.global_batch_size > count:
            too_large.setdefault(row.global_batch_size, []).append(name)
    if too_large:
        raise ParamsError(
            "\n".join(
                f"params.yaml: models.{names[0]}.global_batch_size: {size:,} is larger than the training "
                f"set of {count:,} images, and a batch would have an image twice: lower it to {count:,} "
                f"at the most{params.also_in(names)}"
                for size, names in too_large.items()
            )
        )


def settle(study: Study, found: dict[str, Any]) -> None:
    """Prints and writes the account of the data; raises DataError where it makes the study wrong."""
    for line in account.said(found):
        print(line, flush=True)
    account.require_sound(found, study.data.duplicates_pct)
    write_json(paths.ACCOUNT, found)
