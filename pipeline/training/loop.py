"""The training loop, section 3.4 of the paper: SGD with momentum on augmented mini-batches.

It knows nothing of Ray, MLflow, S3 or rank: data parallelism and precision are applied to the
model before it, and `report` stores what it is given.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.data.arrays import Split
from pipeline.data.batches import Batches
from pipeline.errors import DivergedError
from pipeline.models.predict import Precision, autocast, predict
from pipeline.training.schedule import CosineSchedule, StepSchedule
from pipeline.training.state import Record, TrainingState

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all workers; the identity for one."""


def train(
    state: TrainingState,
    model: torch.nn.Module,
    batches: Batches,
    schedule: StepSchedule | CosineSchedule,
    *,
    learning_rate_factor: float,
    precision: Precision,
    device: torch.device,
    report_every_updates: int,
    validate: Callable[[], tuple[float, float]],
    report: Callable[[TrainingState], None],
    reduce: Reduce,
) -> None:
    """Brings `state` from its update to the schedule's last, reporting now and then.

    `model` is `state.model`, perhaps wrapped for data parallelism. `validate` returns (loss, error
    in percent) on the validation images. Raises DivergedError at the first report after a loss
    that is not finite; nothing of that interval is stored.
    """
    meter = Meter(report_every_updates, device)
    model.train()
    for update, (images, labels) in batches.between(state.update, schedule.total_updates):
        lr = schedule.lr_at(update) * learning_rate_factor
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        with autocast(precision, device):
            logits = model(images)
        loss = cross_entropy(logits.float(), labels)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        meter.add(loss, logits, labels)
        state.update = update + 1

        if state.update % report_every_updates == 0 or state.update == schedule.total_updates:
            rate, train_loss, train_error_pct = meter.read(state, lr, reduce)
            val_loss, val_error_pct = validate()
            if not math.isfinite(val_loss):
                raise DivergedError(
                    f"the validation loss after update {state.update} is {val_loss} at a learning "
                    f"rate of {lr:g}; {_last_good(state)}"
                )
            before = state.history[-1].seconds if state.history else 0.0
            state.history.append(
                Record(
                    update=state.update,
                    epoch=batches.epoch_at(state.update),
                    lr=lr,
                    train_loss=train_loss,
                    train_error_pct=train_error_pct,
                    val_loss=val_loss,
                    val_error_pct=val_error_pct,
                    seconds=before + meter.seconds(),
                    train_images_per_s=rate,
                )
            )
            report(state)
            meter.reset()


class Meter:
    """Sums losses and errors on the device, read only at reports: a step waits for nothing."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._losses = torch.zeros(capacity, device=device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.reset()

    def reset(self) -> None:
        """Starts an interval."""
        self._wrong.zero_()
        self._updates = self._images = 0
        self._started = time.perf_counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Counts one update."""
        self._losses[self._updates] = loss.detach()
        self._wrong += (logits.argmax(1) != labels).sum()
        self._updates += 1
        self._images += len(labels)

    def read(self, state: TrainingState, lr: float, reduce: Reduce) -> tuple[float, float, float]:
        """Returns images a second, mean loss and error in percent, over all workers."""
        wrong, images, losses = (
            reduce(value.double()).cpu()
            for value in (
                self._wrong,
                torch.tensor(self._images, device=self._wrong.device),
                self._losses[: self._updates],
            )
        )
        rate = float(images) / self.seconds()
        workers = images / self._images
        losses /= workers
        if not torch.isfinite(losses).all():
            first = int((~torch.isfinite(losses)).nonzero()[0])
            raise DivergedError(
                f"the loss of update {state.update - self._updates + first} is "
                f"{float(losses[first])} at a learning rate of about {lr:g}; {_last_good(state)}"
            )
        return rate, float(losses.mean()), float(100 * wrong / images)

    def seconds(self) -> float:
        """Returns how long the interval is."""
        return time.perf_counter() - self._started


def _last_good(state: TrainingState) -> str:
    good = state.history[-1].update if state.history else 0
    return (
        f"the last good checkpoint is of update {good}: lower base_lr in the schedule or "
        "learning_rate_factor in params.yaml"
    )


def loss_and_error(
    model: torch.nn.Module, split: Split, mean: Tensor, precision: Precision
) -> tuple[float, float]:
    """Returns the mean cross-entropy and the error in percent over a whole split."""
    logits = torch.cat(list(predict(model, split.images, mean, precision)))
    loss = float(cross_entropy(logits, split.labels))
    wrong = (logits.argmax(1) != split.labels).double().mean()
    return loss, float(100 * wrong)
