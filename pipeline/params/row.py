"""Section `models`: each row is one training."""

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

    The learning rate of an update is the schedule's times `learning_rate_factor`. `workers` and
    `gradient_accumulation_steps` affect the result, since batch-norm statistics are computed separately
    for each of the pieces into which a worker's share of a batch is cut; workers may be elastic.
    `threads` is how many threads a worker computes with on a CPU; the last bits of its sums depend on
    this number, but a machine with fewer cores ends with the same bits, only later. `extras` are applied
    after the augmentation's crop, in the given order. `averaged_batch_norm_batches` is how many batches
    the final statistics are averaged over after training, as in the authors' release; 0 keeps the
    running averages. `activation_checkpointing` saves memory at the cost of a second forward pass.
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

    # options added later, with the values at which they change nothing: rows that have these keep their
    # keys
    NEUTRAL: ClassVar[dict[str, Any]] = {"extras": []}

    def canonical(self, *left_out: str) -> dict[str, Any]:
        """Returns the row as it is hashed: a document without `left_out` and without neutral options."""
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
        """The smallest and the largest number of workers."""
        if isinstance(self.workers, Elastic):
            return self.workers.low, self.workers.high
        return self.workers, self.workers

    @model_validator(mode="after")
    def _checkpoints_blocks_that_it_has(self) -> Self:
        if self.activation_checkpointing and isinstance(self.network, TorchvisionNetwork):
            raise ValueError(
                "activation_checkpointing true with family torchvision, whose blocks are not ours: set "
                "it to false; if memory is short, raise gradient_accumulation_steps"
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
