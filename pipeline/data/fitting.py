"""Whether data and study fit: the account of the data is sound, and the rows suit the prepared data.

`prepare` checks both, `check` only the rows.
"""

import json
from typing import Any

from pipeline import params, paths
from pipeline.data.sources import account
from pipeline.errors import ParamsError
from pipeline.files import write_json
from pipeline.params import Study, TorchvisionNetwork, canonical_sha256


def recipe_of(study: Study) -> str:
    """Returns the digest of section `data`, which tells whether prepared data belong to the study."""
    return canonical_sha256(study.data.model_dump(mode="json"))


def require_if_prepared(study: Study) -> None:
    """Raises ParamsError if this study's data are prepared and a row does not fit them."""
    try:
        summary = json.loads(paths.DIGEST.read_text())
    except (FileNotFoundError, ValueError):
        return
    if summary.get("recipe") == recipe_of(study):
        require(study, summary)


def require(study: Study, summary: dict[str, Any]) -> None:
    """Raises ParamsError with a line for each batch size larger than the training set, and one if
    networks need three channels that the images do not have.
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
            f"params.yaml: models.{rows[0]}.network: torchvision's networks take three channels, "
            f"but the images have {channels}: use family cifar or imagenet{params.also_in(rows)}"
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
                f"set of {count:,} images, so a batch would contain an image twice: lower it to "
                f"{count:,} or less{params.also_in(names)}"
                for size, names in too_large.items()
            )
        )


def settle(study: Study, found: dict[str, Any]) -> None:
    """Prints and writes the account; raises DataError if too many images are in two splits."""
    for line in account.said(found):
        print(line, flush=True)
    account.require_sound(found, study.data.duplicates_pct)
    write_json(paths.ACCOUNT, found)
