"""The training loop, section 3.4 of the paper: SGD with momentum on augmented mini-batches.

It knows nothing of Ray, MLflow, S3 or ranks: the model is wrapped for data parallelism beforehand, and
`report` stores the states that it is given.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.checkpoint import Record
from pipeline.data.feeding.batches import Batches
from pipeline.errors import DivergedError
from pipeline.models.predict import autocast, predict
from pipeline.params import Precision
from pipeline.training.replicas import Replicas
from pipeline.training.sgd import Sgd
from pipeline.training.state import TrainingState
from pipeline.training.training import Training

Update = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Updates the weights on one batch, as `Step` does; a GPU may replay it from a graph."""


@dataclass(frozen=True)
class Step:
    """One update on a batch: forward, backward, SGD at the optimizer's learning rate.

    The batch passes through the model in `pieces` whose gradients are summed (gradient accumulation).
    Nothing waits for the device.
    """

    model: torch.nn.Module
    optimizer: Sgd
    precision: Precision
    label_smoothing: float
    pieces: int

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss, float32 (), and how many predictions were wrong, int64 ().

        `images` float32 (N, C, H, W), `labels` int64 (N,); N is a multiple of `pieces`.
        """
        self.optimizer.zero_grad()
        total = torch.zeros((), device=images.device)
        wrong = torch.zeros((), dtype=torch.int64, device=images.device)
        shares = zip(images.chunk(self.pieces), labels.chunk(self.pieces), strict=True)
        for some_images, some_labels in shares:
            with autocast(self.precision, images.device):
                logits = self.model(some_images)
            loss = cross_entropy(logits, some_labels, label_smoothing=self.label_smoothing)
            loss = loss / self.pieces
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            wrong += (logits.argmax(1) != some_labels).sum()
        self.optimizer.step()
        return total, wrong


def train(
    training: Training,
    state: TrainingState,
    step: Update,
    batches: Batches,
    replicas: Replicas,
    *,
    finish: Callable[[], None],
    validate: Callable[[], tuple[float, float]],
    report: Callable[[TrainingState], None],
) -> None:
    """Trains `state` to the schedule's last update, or to a trial's last for now, with regular reports.

    `step` updates the state's weights. `finish` runs after the schedule's last update, before it is
    reported; `validate` returns (loss, error in percent) on the validation images, the same on every
    worker. Raises DivergedError at the first report after a loss that is not finite, and ReplicasError
    if the workers no longer hold the same state; nothing of that interval is stored.
    """
    row, schedule = training.row, training.schedule
    meter = Meter(row.report_every_updates, next(state.model.parameters()).device)
    state.model.train()
    for update, (images, labels) in batches.between(state.update, training.last_update):
        lr = schedule.lr_at(update, state.history) * row.learning_rate_factor
        state.optimizer.set_lr(lr)
        loss, wrong = step(images, labels)
        meter.add(loss, wrong, len(labels), lr)
        state.update = update + 1

        if state.update % row.report_every_updates == 0 or state.update == schedule.total_updates:
            rate, train_loss, train_error_pct = meter.read(state, replicas)
            if state.update == schedule.total_updates:
                finish()
            replicas.share_statistics(state.model)
            val_loss, val_error_pct = validate()
            if not math.isfinite(val_loss):
                raise DivergedError(
                    f"the validation loss after update {state.update} is {val_loss} at a learning "
                    f"rate of {lr:g}; {_last_good(state)}"
                )
            before = state.history[-1].seconds if state.history else 0.0
            seconds, rate = replicas.of_first([before + meter.seconds(), rate])
            state.history.append(
                Record(
                    update=state.update,
                    epoch=batches.epoch_at(state.update),
                    lr=lr,
                    train_loss=train_loss,
                    train_error_pct=train_error_pct,
                    val_loss=val_loss,
                    val_error_pct=val_error_pct,
                    precision=row.precision,
                    threads=torch.get_num_threads(),
                    seconds=seconds,
                    train_images_per_s=rate,
                )
            )
            replicas.require_equal(state)
            report(state)
            meter.reset()


class Meter:
    """Collects losses and errors on the device and reads them only at reports, so that no step waits."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._losses = torch.zeros(capacity, device=device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.reset()

    def reset(self) -> None:
        """Starts a new interval."""
        self._wrong.zero_()
        self._rates: list[float] = []
        self._images = 0
        self._started = time.perf_counter()

    def add(self, loss: Tensor, wrong: Tensor, images: int, lr: float) -> None:
        """Counts one update."""
        self._losses[len(self._rates)] = loss
        self._wrong += wrong
        self._images += images
        self._rates.append(lr)

    def read(self, state: TrainingState, replicas: Replicas) -> tuple[float, float, float]:
        """Returns images per second, mean loss and error in percent, over all workers."""
        updates = len(self._rates)
        wrong, images, losses = (
            replicas.sum(value.double()).cpu()
            for value in (
                self._wrong,
                torch.tensor(self._images, device=self._wrong.device),
                self._losses[:updates],
            )
        )
        rate = float(images) / self.seconds()
        workers = images / self._images
        losses /= workers
        if not torch.isfinite(losses).all():
            first = int((~torch.isfinite(losses)).nonzero()[0])
            raise DivergedError(
                f"the loss of update {state.update - updates + first} is {float(losses[first])} at a "
                f"learning rate of {self._rates[first]:g}; {_last_good(state)}"
            )
        return rate, float(losses.mean()), float(100 * wrong / images)

    def seconds(self) -> float:
        """Returns how many seconds the interval has lasted."""
        return time.perf_counter() - self._started


def _last_good(state: TrainingState) -> str:
    good = state.history[-1].update if state.history else 0
    return (
        f"the last good checkpoint is of update {good}: lower base_lr in the schedule or "
        "learning_rate_factor in params.yaml"
    )


def loss_and_wrong(
    model: torch.nn.Module, inputs: Iterable[Tensor], labels: Tensor, precision: Precision
) -> Tensor:
    """Returns the summed cross-entropy and how many images are wrong, float64 (2,), over all batches.

    `labels` int64 (N,) are those of all batches, in order.
    """
    found = torch.zeros(2, dtype=torch.float64, device=labels.device)
    done = 0
    for logits in predict(model, inputs, precision):
        some = labels[done : done + len(logits)]
        found[0] += cross_entropy(logits.double(), some, reduction="sum")
        found[1] += (logits.argmax(1) != some).sum()
        done += len(logits)
    return found
