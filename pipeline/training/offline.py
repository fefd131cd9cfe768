"""Trains rows on a machine that reaches neither S3 nor a cluster, such as a GPU node without a network.

    python -m pipeline.training.offline <folder> <row> ...

A clone with the prepared data (data/arrays.safetensors) suffices, and torch, numpy, pydantic, ruamel.yaml,
safetensors, pillow, filelock, psutil and tqdm. Checkpoints are kept in the folder; an interrupted training
goes on from there. `make bring FROM=<folder>` then commits them to S3, where `dvc repro` collects them like
any others.
"""

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from pipeline import command, params, paths
from pipeline.checkpoint import Checkpoint, CheckpointFacts, Record
from pipeline.data import prepared
from pipeline.errors import CheckpointError, ParamsError
from pipeline.files import exclusively, write, write_json
from pipeline.git import commit
from pipeline.params import Sharded
from pipeline.progress import Progress
from pipeline.training.hardware import require
from pipeline.training.run import run
from pipeline.training.schedule import load_schedule
from pipeline.training.training import Training


class FolderCheckpoints:
    """The last checkpoint of a training, in a folder: <key>.json, which names the file of its tensors."""

    def __init__(self, folder: Path, key: str, commit: str = "unknown") -> None:
        self._folder, self._key, self._commit = folder, key, commit

    @property
    def _document(self) -> Path:
        return self._folder / f"{self._key}.json"

    def latest(self) -> Checkpoint | None:
        """Returns the last checkpoint, or None; raises CheckpointError if it is damaged."""
        try:
            said = json.loads(self._document.read_text())
            tensors = (self._folder / said["tensors"]).read_bytes()
            if hashlib.sha256(tensors).hexdigest() != said["sha256"]:
                raise ValueError(f"{said['tensors']}: its sha256 is not {said['sha256'][:12]}")
            return Checkpoint(tensors, CheckpointFacts.parse(said["facts"]))
        except FileNotFoundError as error:
            if Path(error.filename) == self._document:
                return None
            raise self._damaged(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then deletes the one before it."""
        name = f"{self._key}-{checkpoint.facts.update:08d}.safetensors"
        write(self._folder / name, checkpoint.tensors, durable=True)
        facts = replace(checkpoint.facts, commit=self._commit)
        found = {
            "facts": facts.document(),
            "tensors": name,
            "sha256": hashlib.sha256(checkpoint.tensors).hexdigest(),
        }
        write_json(self._document, found, durable=True)
        for old in self._folder.glob(f"{self._key}-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self._document}: no intact checkpoint ({error}): copy the folder again, or delete this file to "
            "train from the first update"
        )


def train(name: str, folder: Path, device: torch.device) -> None:
    """Trains the row `name` of params.yaml to its last update, on this machine alone."""
    study = params.load()
    if isinstance(study.data, Sharded):
        raise ParamsError(
            f"{name}: the photographs of {study.data.kind} lie on S3, in shards: train on a machine that "
            "reaches it"
        )
    row = params.row_of(study, name)
    if row.worker_bounds[0] > 1:
        raise ParamsError(f"models.{name}.workers: found {row.workers}, wanted 1 without a cluster")
    require(row.precision, f"models.{name}.precision")
    schedule = load_schedule(Path(study.models[name].schedule))
    training = Training.of(name, row, schedule, prepared.look(paths.ARRAYS).digest)
    checkpoints = FolderCheckpoints(folder, training.key, commit())
    with (
        exclusively(folder / f"{training.key}.lock", f"the training of {name}"),
        Progress(name, schedule.total_updates, "updates") as progress,
    ):

        def on_report(history: list[Record]) -> None:
            last = history[-1]
            progress.to(last.update, f"{last.val_error_pct:.1f} % error on val")

        started = time.time()
        state = run(
            training, paths.ARRAYS, checkpoints, started=started, device=device, on_report=on_report
        )
    print(f"{name}: {state.update:,} updates -> {folder}/{training.key}.json", flush=True)


def main(folder: str = "", *rows: str) -> None:
    """Trains the rows, one after another, on the GPU if there is one."""
    if not rows:
        raise ParamsError(
            "wanted a folder and rows: python -m pipeline.training.offline <folder> <row> ..."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        for name in rows:
            train(name, Path(folder), device)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: the same command goes on from the last checkpoint"
        ) from None


if __name__ == "__main__":
    command.main(main)
