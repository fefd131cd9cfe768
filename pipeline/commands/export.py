"""`make export RUN=<row>`: a trained network for other programs -> export/<row>/ (not a DVC stage).

What needs no Python to be read is laid beside the row's model in MLflow too.
"""

import contextlib
import io
import logging
import sys
from pathlib import Path

import numpy as np

from infra.local import s3
from pipeline import command, params, paths
from pipeline.errors import DataError, ParamsError, StorageError, TrackingError
from pipeline.files import write_json
from pipeline.models import weights
from pipeline.models.exporting import export
from pipeline.models.resnet import ResNet
from pipeline.tracking import results
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.waiting import limit_s, within


def main(name: str) -> None:
    """Exports the row `name`."""
    study = params.load()
    if not name:
        raise ParamsError(f"RUN: wanted a row of params.yaml: {', '.join(study.models)}")
    params.row_of(study, name)
    trained = weights.load(paths.run(name))
    if not isinstance(trained.model, ResNet):
        raise ParamsError(
            f"RUN={name}: {trained.facts.arch} is of family {trained.facts.network['family']}, which "
            "this command cannot export: wanted a row of family cifar or imagenet"
        )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # torch's exporter prints its steps
        written = export(
            trained.model, trained.facts.channels, Path("export") / name
        )  # fmt: skip
    written.append(Path("export") / name / "mean.npy")
    np.save(written[-1], trained.mean.numpy(), allow_pickle=False)
    written.append(written[-1].with_name("classes.json"))
    write_json(written[-1], list(trained.facts.classes))
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    plain = [path for path in written if path.suffix != ".pt2"]  # torch.export's has pickles
    try:
        storage = s3.connect()
        with within(limit_s(sum(path.stat().st_size for path in plain))):
            tracker = Tracker(results.address_of(study), storage.upload, storage)
            results.exported(tracker, name, study.models[name], plain, storage)
    except (TrackingError, DataError, StorageError) as error:
        print(f"warning: not in MLflow: {error}", file=sys.stderr)


if __name__ == "__main__":
    command.main(main)
