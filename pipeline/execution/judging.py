"""Checks before any work: the study's schedules, this device, torchvision's networks."""

import os
import sys
from functools import partial
from pathlib import Path

from pipeline import params
from pipeline.environment import CLUSTER
from pipeline.errors import ParamsError, ResourceError
from pipeline.params import Study, TorchvisionNetwork
from pipeline.training.schedule import load_schedule


def require_schedules(study: Study) -> None:
    """Raises ParamsError if a row's schedule is missing or invalid; what a search finds comes later."""
    rows: dict[str, list[str]] = {}
    for name, row in study.models.items():
        if row.tuned_by is None:
            rows.setdefault(row.schedule, []).append(name)

    def require(file: str) -> None:
        names = rows[file]
        load_schedule(Path(file), f"models.{names[0]}.schedule{params.also_in(names)}")

    params.together(partial(require, file) for file in rows)


def warn_of_precisions(study: Study) -> None:
    """Says if this machine is to train and lacks the precision of a row.

    It is no error yet: what was trained elsewhere is collected here.
    """
    if os.environ.get(CLUSTER):
        return  # each node checks for itself
    for name, row in study.models.items():
        if row.precision != "float32":
            from pipeline.training.hardware import require  # torch

            try:
                require(row.precision, f"models.{name}.precision")
            except ResourceError as error:
                print(f"warning: {error}; what is trained already is collected", file=sys.stderr)
                return


def require_networks(study: Study) -> None:
    """Raises ParamsError if torchvision has no network with a row's name and arguments."""
    rows = {
        name: row
        for name, row in study.models.items()
        if isinstance(row.network, TorchvisionNetwork)
    }
    if rows:
        import torch  # and torchvision: this takes seconds

        from pipeline.models.networks import build

        def require(name: str) -> None:
            try:
                with torch.device("meta"):  # no weights are drawn
                    build(rows[name].network, 3, 10)
            except ParamsError as error:
                raise ParamsError(f"params.yaml: models.{name}: {error}") from error

        params.together(partial(require, name) for name in rows)
