"""Checks before any work: the study's schedules, this device, torchvision's networks."""

import os
import sys
from functools import partial
from pathlib import Path

from pipeline import params
from pipeline.environment import CLUSTER
from pipeline.errors import ParamsError, ResourceError
from pipeline.params import CifarNetwork, ImageNetNetwork, Row, Study
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


def warn_of_equal_rows(study: Study) -> None:
    """Says which rows are one training: a seed counts once, however often it is there.

    It is no error: `dvc exp run -S models.<row>.seed=...` may ask for a seed that another row has.
    """
    first: dict[str, str] = {}
    for name, row in study.models.items():
        if (same := first.setdefault(row.model_dump_json(), name)) != name:
            print(
                f"warning: params.yaml: models.{name}: equal to {same} in every value, and so the same training, "
                "which counts once: give it another seed, or remove it",
                file=sys.stderr,
            )


def require_networks(study: Study) -> None:
    """Raises ParamsError if a row's network cannot be built, or does not take the images that it is to see.

    The paper's own take any size, and are not looked at.
    """
    rows = [
        name
        for name, row in study.models.items()
        if not isinstance(row.network, CifarNetwork | ImageNetNetwork)
    ]
    params.together(partial(_require_network, study, name) for name in rows)


def _require_network(study: Study, name: str) -> None:
    """Raises ParamsError, as `require_networks`; on a device where no weight is drawn and nothing computed."""
    import torch  # and torchvision: this takes seconds

    from pipeline.models.networks import build

    row = study.models[name]
    try:
        try:
            with torch.device("meta"):
                model = build(row.network, 3, 10)
        except NotImplementedError:  # it reads values while it is built
            model = build(row.network, 3, 10).to("meta")
    except ParamsError as error:
        raise ParamsError(f"params.yaml: models.{name}: {error}") from error
    model.eval()
    for height, width in _sizes(study, row):
        try:
            with torch.no_grad():
                model(torch.zeros(1, 3, height, width, device="meta"))
        except NotImplementedError:  # it reads values: this cannot be told here
            return
        except Exception as error:  # a network raises what it likes
            whole = ", and photographs are tested whole too: choose a network that takes any size"
            raise ParamsError(
                f"params.yaml: models.{name}: the network takes no images of {height} x {width} pixels "
                f"({error}){whole if height != width else ''}"
            ) from error


def _sizes(study: Study, row: Row) -> list[tuple[int, int]]:
    """Returns (height, width) of images that a row's network will see, of each kind one."""
    square = {side for side in (row.crop_px, study.data.side_px) if side is not None}
    whole = [(side, side * 4 // 3) for side in study.evaluation.scales_px or ()]
    return [*((side, side) for side in sorted(square)), *whole]
