"""A training's checkpoint: its tensors and the facts about them.

The training process writes it, S3 keeps it, and progress, MLflow and the results are read from it alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from pipeline.errors import CheckpointError
from pipeline.params import Precision


@dataclass(frozen=True)
class Record:
    """One line of the history; training figures are means since the previous line, on augmented images.

    `seconds` and `train_images_per_s` differ from run to run; everything else is bit for bit the same,
    however often the training was interrupted.
    """

    update: int
    epoch: float
    lr: float
    train_loss: float
    train_error_pct: float
    val_loss: float
    val_error_pct: float
    precision: Precision
    threads: int
    seconds: float
    train_images_per_s: float


@dataclass(frozen=True)
class CheckpointFacts:
    """The facts that a checkpoint stores besides its tensors.

    `trained` is the row, schedule and data as a document, `source` the digest of the code that trained,
    and `device` the kind of device it ran on, "cpu" or "cuda". `time` is when the checkpoint was made,
    in seconds since 1970, and `wall_seconds` the duration of all attempts up to then. `usage` says of each line
    of the history how busy the first worker's machine was (`pipeline.training.usage`). The store adds the Git
    `commit` and the number of the `attempt`.
    """

    name: str
    key: str
    trained: dict[str, Any]
    update: int
    total_updates: int
    workers: int
    threads: int
    torch: str
    hardware: str
    time: float
    wall_seconds: float
    history: tuple[Record, ...]
    source: str | None = None
    device: str = "cpu"
    commit: str = "unknown"
    attempt: int = 0
    usage: tuple[dict[str, float], ...] = ()

    @property
    def is_finished(self) -> bool:
        """Tells whether this is the checkpoint of the schedule's last update."""
        return self.update == self.total_updates

    def document(self) -> dict[str, Any]:
        """Returns the facts as JSON-like values."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Returns the facts that `document` wrote, also in earlier code, whose history had no threads.

        Raises CheckpointError if something is missing.
        """
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        try:
            threads = {"threads": document["threads"]}
            history = tuple(Record(**{**threads, **line}) for line in document["history"])
            return cls(**{**known, "history": history, "usage": tuple(document.get("usage", ()))})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"a checkpoint of {document.get('name')} (key {document.get('key')}) is not in this "
                f"code's format: {error}: go on with the code that wrote it, or `make forget RUN=<key>`"
            ) from error


class Checkpoint(NamedTuple):
    """Weights, batch-norm statistics and momentum in the safetensors format, and facts about them."""

    tensors: bytes
    facts: CheckpointFacts
