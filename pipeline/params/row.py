"""Section `models`: a row is a training."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.params.augmentation import Augmentation, Extra
from pipeline.params.network import Network, TorchvisionNetwork
from pipeline.params.section import TUNED, Elastic, Fraction, Precision, ScheduleFile, Section


class Optimizer(Section):
    """SGD; weight decay is applied to every parameter, as the paper's Caffe solver does."""

    momentum: Fraction
    weight_decay: NonNegativeFloat


class Row(Section):
    """One network with one seed: one training, one run key, one MLflow run.

    The learning rate of an update is the schedule's, times `learning_rate_factor`. `workers` and
    `gradient_accumulation_steps` belong to what is computed, since batch-norm statistics are taken
    over a worker's share, in as many pieces; workers may be elastic. `threads` is how many a worker
    computes with on a CPU, and on which the last bits of its sums depend; a machine with fewer cores
    is slower and ends with the same bits. `extras` come after the augmentation's crop, in their order.
    `averaged_batch_norm_batches` is how many batches the final statistics are averaged over after
    training, as in the authors' release; 0 keeps the running ones. `activation_checkpointing` trades a
    second forward pass for memory.
    """

    network: Network
    schedule: ScheduleFile
    learning_rate_factor: PositiveFloat
    optimizer: Optimizer
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    augmentation: Augmentation
    extras: tuple[Extra, ...]
    global_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt
    activation_checkpointing: bool
    averaged_batch_norm_batches: NonNegativeInt
    seed: NonNegativeInt
    precision: Precision
    threads: PositiveInt
    workers: PositiveInt | Elastic
    report_every_updates: PositiveInt

    # options that came later, by the value at which they change nothing: a row without them has its old key
    NEUTRAL: ClassVar[dict[str, Any]] = {"extras": []}

    def canonical(self, *left_out: str) -> dict[str, Any]:
        """Returns the row as a document, without what it leaves neutral: what is trained, and hashed."""
        document = self.model_dump(mode="json", exclude=set(left_out))
        return {
            name: value
            for name, value in document.items()
            if name not in self.NEUTRAL or value != self.NEUTRAL[name]
        }

    @property
    def crop_px(self) -> int | None:
        """The side of training crops; None where images keep their size."""
        return self.augmentation.crop_px

    @property
    def tuned_by(self) -> str | None:
        """The search that finds the row's schedule; None where it is a file of the study."""
        folder, _, file = self.schedule.partition("/")
        return file.removesuffix(".yaml") if folder == TUNED else None

    @property
    def worker_bounds(self) -> tuple[int, int]:
        """The least and the largest number of workers."""
        if isinstance(self.workers, Elastic):
            return self.workers.low, self.workers.high
        return self.workers, self.workers

    @model_validator(mode="after")
    def _checkpoints_blocks_that_it_has(self) -> Self:
        if self.activation_checkpointing and isinstance(self.network, TorchvisionNetwork):
            raise ValueError(
                "activation_checkpointing true with family torchvision, whose blocks are not ours: take "
                "false, or gradient_accumulation_steps against too little memory"
            )
        return self

    @model_validator(mode="after")
    def _batch_is_shared_evenly(self) -> Self:
        low, high = self.worker_bounds
        for workers in range(low, high + 1):
            pieces = workers * self.gradient_accumulation_steps
            if self.global_batch_size % pieces:
                raise ValueError(
                    f"global_batch_size {self.global_batch_size} is not a multiple of {pieces} = "
                    f"workers {workers} x gradient_accumulation_steps "
                    f"{self.gradient_accumulation_steps}: all must have equal shares; change one of "
                    "them"
                )
        return self
