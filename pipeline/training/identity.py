"""The identity of a training: the same key resumes or collects it, another starts afresh."""

import os
from functools import cache
from typing import Any

from pipeline import attested, source
from pipeline.errors import ParamsError
from pipeline.params import Row, canonical_sha256
from pipeline.training.schedule import Schedule

CONTINUE = "STUDY_CONTINUE"
KEY_LENGTH = 24
TRAINING = "pipeline.training.run"
# modules that do not count: what is in the key itself (the row, the data's digest), what only people
# read, what asks for keys, and the lists of kinds
NOT_COMPUTING = {
    "pipeline.attested",
    "pipeline.errors",
    "pipeline.files",
    "pipeline.params",
    "pipeline.progress",
    "pipeline.source",
    "pipeline.training.identity",
    "pipeline.models.networks",
    "pipeline.data.feeding.augmentations",
    "pipeline.data.feeding.extras",
    "pipeline.training.schedule",
}


def source_of(row: Row, schedule: Schedule) -> str:
    """Returns the sha256 of the present source that computes a training of a row.

    It covers what every training runs and the kinds that this one uses; a kind's file has the kind's
    name.
    """
    return computing(
        TRAINING,
        f"pipeline.models.families.{row.network.family}",
        f"pipeline.data.feeding.{row.augmentation.kind}",
        *(f"pipeline.data.feeding.{extra.kind}" for extra in row.extras),
        f"pipeline.training.schedules.{schedule.shape}",
    )


@cache
def computing(*modules: str) -> str:
    """Returns the sha256 of the source of some modules and of all our modules that they compute with."""
    needed = source.needed(*modules, leave=NOT_COMPUTING)
    if missing := [module for module in modules if module not in needed]:
        raise ParamsError(f"{missing[0]}: no such module: each kind needs a file of its name")
    return source.digest(needed)


def what_is_trained(row: Row, schedule: Schedule, data_digest: str) -> dict[str, Any]:
    """Returns all that determines a training except the source: row, schedule's content, data."""
    return {
        "row": row.canonical("schedule"),
        "schedule": schedule.model_dump(mode="json"),
        "data": data_digest,
    }


def run_key(name: str, row: Row, schedule: Schedule, data_digest: str) -> tuple[str, bool]:
    """Returns the key of a row's training and whether the user overrode it.

    The key is computed from the sha256 over the row (with its schedule's content), the data digest and
    the source that trains; if `make attest` found this source equal to older source, the oldest counts.
    `STUDY_CONTINUE=<row>=<key>` in the environment overrides the key, so that a training can go on after
    a change that is not an equivalence; model.json and MLflow record this, and a checkpoint of another
    row, schedule or data set is refused.
    """
    if override := dict(_overrides()).get(name):
        return override, True
    computed_by = attested.oldest(source_of(row, schedule))
    identity = {**what_is_trained(row, schedule, data_digest), "source": computed_by}
    return canonical_sha256(identity)[:KEY_LENGTH], False


def _overrides() -> list[tuple[str, str]]:
    pairs = []
    for entry in os.environ.get(CONTINUE, "").split():
        name, _, key = entry.partition("=")
        if len(key) != KEY_LENGTH or set(key) - set("0123456789abcdef"):
            raise ParamsError(
                f"{CONTINUE}: found {entry!r}, wanted <row>=<key of {KEY_LENGTH} hexadecimal digits>"
            )
        pairs.append((name, key))
    return pairs
