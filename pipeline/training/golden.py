"""The entry point of `make attest`, whose format is frozen: recipes in, digests of trained results out.

The format of standard input and output never changes, since newer commits ask older ones; the code in
between belongs to its own commit.

    in   {"recipes": {name: {row, schedule, data: {images, classes, size_px, sharded}, workers, stops}},
          "sources": [{row, schedule}]}
    out  {"device", "hardware", "torch": of this machine,
          "results": {name: {weights, history} or {error}}, "sources": [digest or null]}

`stops` are the updates (at reports) at which the training ends and is resumed from its checkpoint.
"""

import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load as load_tensors
from torch import distributed, multiprocessing

from pipeline.checkpoint import Checkpoint, CheckpointFacts
from pipeline.data import dataset, prepared
from pipeline.data.feeding.shards import Shard
from pipeline.data.sources import shard_files
from pipeline.errors import StudyError
from pipeline.models.predict import device
from pipeline.params import Row
from pipeline.training.hardware import hardware
from pipeline.training.history import history_digest
from pipeline.training.identity import KEY_LENGTH, source_of
from pipeline.training.run import run
from pipeline.training.schedule import Schedule
from pipeline.training.training import Training

COUNTS = {"train": 1.0, "val": 0.25, "test": 0.25}  # split sizes, relative to a recipe's `images`


class Folder:
    """Checkpoints and shards as files that all workers see."""

    decoders = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def latest(self) -> Checkpoint | None:
        """Returns the last checkpoint, or None."""
        if not (found := sorted(self.folder.glob("*.json"))):
            return None
        facts = CheckpointFacts.parse(json.loads(found[-1].read_text()))
        return Checkpoint(found[-1].with_suffix(".bin").read_bytes(), facts)

    def save(self, checkpoint: Checkpoint) -> None:
        """Stores a checkpoint."""
        path = self.folder / f"{checkpoint.facts.update:08d}.json"
        path.with_suffix(".bin").write_bytes(checkpoint.tensors)
        path.write_text(json.dumps(checkpoint.facts.document()))

    def path(self, shard: Shard) -> Path:
        """Returns a shard's file."""
        return self.folder / shard.sha256


def made(data: dict[str, Any], folder: Path) -> Path:
    """Writes a synthetic data set, each class a pattern in noise, and returns its file."""
    generator, side, classes = np.random.default_rng(7), data["size_px"], data["classes"]
    patterns = generator.integers(0, 256, (classes, side, side, 3))
    found: dict[str, NDArray[Any]] = {}
    for split, share in COUNTS.items():
        count = int(data["images"] * share)
        labels = np.arange(count, dtype=np.int64) % classes
        noise = generator.integers(0, 256, (count, side, side, 3))
        images = ((patterns[labels] + noise) // 2).astype(np.uint8)
        found |= {f"{split}_labels": labels, f"{split}_ids": np.arange(count, dtype=np.int64)}
        if data["sharded"]:
            found |= _sharded(split, images, labels, folder)
        else:
            found[f"{split}_images"] = images
        if split == "train":
            found["mean"] = (images.sum(axis=0) / count).astype(np.float32)
    found["colour"] = np.diag([40.0, 20.0, 10.0]).astype(np.float32)
    found["together"], found[dataset.PACKING] = np.array(2), shard_files.as_bytes("golden")
    names = [f"class {number}" for number in range(classes)]
    found["classes"] = np.frombuffer(json.dumps(names).encode(), dtype=np.uint8)
    dataset.save(found, folder / "data.safetensors", folder / "digest")
    return folder / "data.safetensors"


def _sharded(
    split: str, images: NDArray[np.uint8], labels: NDArray[np.int64], folder: Path
) -> dict[str, NDArray[Any]]:
    kept, ids = [], np.arange(len(images))
    for part in np.array_split(ids, 3):
        files = []
        for image in images[part]:
            out = io.BytesIO()
            Image.fromarray(image).save(out, "PNG")
            files.append(out.getvalue())
        content = shard_files.encode(files, labels[part].tolist(), part.tolist(), map(str, part))
        sha256 = hashlib.sha256(content).hexdigest()
        (folder / sha256).write_bytes(content)
        kept.append(Shard("golden", sha256, len(content), len(part)))
    sizes = np.array([image.shape[:2] for image in images], dtype=np.int32)
    return {f"{split}_sizes": sizes, f"{split}_shards": shard_files.table_of(kept)}


def trained(recipe: dict[str, Any]) -> dict[str, str]:
    """Trains a recipe; returns the digests of its weights (with momentum) and of its history."""
    with tempfile.TemporaryDirectory(prefix="study-golden-") as name:
        folder = Path(name)
        (folder / "checkpoints").mkdir()
        path = made(recipe["data"], folder)
        for number, stop in enumerate([*recipe["stops"], None]):
            if (workers := recipe["workers"]) == 1:
                _work(0, 1, recipe, folder, path, stop, number)
            else:
                multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
                    _work, (workers, recipe, folder, path, stop, number), nprocs=workers
                )
        found = Folder(folder / "checkpoints").latest()
    assert found is not None
    sha = hashlib.sha256()
    for name, array in sorted(load_tensors(found.tensors).items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return {"weights": sha.hexdigest(), "history": history_digest(found.facts.history)}


def _work(
    rank: int, workers: int, recipe: dict[str, Any], folder: Path, path: Path,
    stop: int | None, number: int,
) -> None:  # fmt: skip
    where = device() if workers == 1 else torch.device("cpu")
    row, schedule = _parsed(recipe)
    data, key = prepared.look(path).digest, "0" * KEY_LENGTH
    with joined(folder / f"meeting-{number}", rank, workers):
        run(
            Training("golden", row, schedule, data, key, until=stop), path,
            Folder(folder / "checkpoints"), started=time.time(), device=where, files=Folder(folder),
            rank=rank, workers=workers, on_report=lambda history: None,
        )  # fmt: skip


@contextmanager
def joined(meeting: Path, rank: int, workers: int) -> Iterator[None]:
    """While the context lasts, talks by gloo to the other workers of a training, if there are any.

    They meet at a file that does not exist yet.
    """
    if workers == 1:
        yield
        return
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers
    )
    yield
    distributed.destroy_process_group()


def _parsed(recipe: dict[str, Any]) -> tuple[Row, Schedule]:
    schedule: Schedule = TypeAdapter(Schedule).validate_python(recipe["schedule"])
    return Row(**{**Row.NEUTRAL, **recipe["row"]}), schedule


def answered(question: dict[str, Any]) -> dict[str, Any]:
    """Returns the results of a question's recipes, and the digest of the source of each of its rows."""
    results: dict[str, dict[str, str]] = {}
    for number, (name, recipe) in enumerate(question["recipes"].items(), 1):
        print(f"{number}/{len(question['recipes'])} {name}", file=sys.stderr, flush=True)
        try:
            results[name] = trained(recipe)
        except (StudyError, ValidationError) as error:
            results[name] = {"error": str(error).splitlines()[0]}
    sources: list[str | None] = []
    for entry in question["sources"]:
        try:
            row, schedule = _parsed(entry)
        except ValidationError:
            sources.append(None)
        else:
            sources.append(source_of(row, schedule))
    facts = {"device": device().type, "hardware": hardware(), "torch": torch.__version__}
    return {**facts, "results": results, "sources": sources}


def main() -> None:
    """Answers one question; everything else that is printed, also by workers, goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        json.dump(answered(json.load(sys.stdin)), answers)


if __name__ == "__main__":
    main()
