"""Trained rows and ensembles as MLflow models, in its registry too.

A model is code and safetensors (`pipeline.tracking.served`), never a pickle. Its folder is written here and
uploaded as it is, so that a server without a place of its own for artifacts needs none.
"""

import contextlib
import io
import logging
import shutil
import warnings
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pipeline import source
from pipeline.files import scratch, write_json
from pipeline.paths import FACTS, MEMBERS, WEIGHTS

PACKAGES = (
    "mlflow", "torch", "torchvision", "numpy", "pandas", "pillow", "pyarrow", "pydantic", "filelock",
    "ruamel.yaml", "safetensors",
)  # fmt: skip
ENTRANCE = "pipeline.evaluation.classifier"
SERVED = Path(__file__).with_name("served.py")
EPOCH = (1980, 1, 1, 0, 0, 0)  # so that equal code gives equal bytes


def save(folder: Path, members: Sequence[str], runs: Sequence[Path], *, photographs: bool) -> None:
    """Writes an MLflow model of the trained rows in `runs`, trained on `photographs` or not, to a new folder."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Map

    pixels = Array(Array(Array(DataType.long)))
    one = [ColSpec("binary", "image", required=False), ColSpec(pixels, "pixels", required=False)]
    other = [ColSpec("string", "class"), ColSpec(Map(DataType.double), "probabilities")]
    with scratch("model") as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no type hints, and no example
        (place / "code.zip").write_bytes(code())
        _gather(place / "networks", members, runs)
        write_json(
            place / "networks" / MEMBERS, {"members": list(members), "photographs": photographs}
        )
        logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
        with contextlib.redirect_stderr(io.StringIO()):  # bars for copying a file
            mlflow.pyfunc.save_model(
                folder,
                python_model=str(SERVED),
                artifacts={"networks": str(place / "networks"), "code": str(place / "code.zip")},
                signature=ModelSignature(Schema([*one]), Schema([*other])),
                pip_requirements=[f"{name}=={_version(name)}" for name in PACKAGES],
            )
    about = folder / "MLmodel"  # names its code by its place on this machine
    about.write_text(about.read_text().replace(str(SERVED), SERVED.name))


def _gather(folder: Path, members: Sequence[str], runs: Sequence[Path]) -> None:
    for name, run in zip(members, runs, strict=True):
        (folder / name).mkdir(parents=True)
        for file in (WEIGHTS, FACTS):
            shutil.copyfile(run / file, folder / name / file)


def code() -> bytes:
    """Returns a zip of those of our modules that a model needs; equal code gives equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for _, path in sorted(source.needed(ENTRANCE).items()):
            entry = zipfile.ZipInfo(str(path.relative_to(source.ROOT)), EPOCH)
            file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _version(package: str) -> str:
    """Returns an installed package's version without its build (`+cu132`), which no index has."""
    return metadata.version(package).partition("+")[0]
