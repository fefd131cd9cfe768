"""The whole document, and how its sections must agree with each other."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from pipeline.params.augmentation import Augmentation, PadCrop
from pipeline.params.claims import OwnClaim
from pipeline.params.data import (
    Data,
    Sharded,
)
from pipeline.params.row import Row
from pipeline.params.section import RowName, Section
from pipeline.params.tuning import Tune


class Ensemble(Section):
    """Rows whose softmax probabilities are averaged; a second, greedy ensemble is chosen on val."""

    members: tuple[RowName, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("a member is named twice: name each row once")
        return self


class Evaluation(Section):
    """How scores are computed.

    `scales_px` are the shorter sides of section 3.4's fully convolutional test. Photographs need them;
    for small images, which are tested as they are, it is null.
    """

    scales_px: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None
    calibration_bins: PositiveInt


class Execution(Section):
    """Where things run and how many at once; no stage depends on it, so changing it reruns nothing.

    `worker_cpus` and `worker_gpus` (a fraction of one, or several) are what a worker or a trial reserves
    on a cluster; on this machine it reserves a core for each thread of its row and, if there are GPUs,
    `worker_gpus` (0: a whole one). `trials_at_once` is how many trials of a search may run at once.
    """

    trials_at_once: PositiveInt
    worker_cpus: PositiveInt
    worker_gpus: NonNegativeFloat

    @model_validator(mode="after")
    def _gpus_can_be_shared(self) -> Self:
        if self.worker_gpus > 1 and not self.worker_gpus.is_integer():
            raise ValueError(
                f"execution.worker_gpus: found {self.worker_gpus:g}, wanted a fraction of one or a whole number: "
                "Ray shares none of several"
            )
        return self

    @property
    def share(self) -> dict[str, float]:
        """What one worker reserves on a cluster, under Ray's names."""
        return {"CPU": self.worker_cpus, "GPU": self.worker_gpus}


class Study(Section):
    """The whole document."""

    study: RowName
    data: Data
    tune: dict[RowName, Tune]
    models: dict[RowName, Row] = Field(min_length=1)
    ensemble: Ensemble
    evaluation: Evaluation
    claims: tuple[OwnClaim, ...]
    execution: Execution

    @model_validator(mode="after")
    def _names_are_rows(self) -> Self:
        wanted = "wanted a key of models: " + ", ".join(self.models)
        for member in self.ensemble.members:
            if member not in self.models:
                raise ValueError(f'ensemble.members: "{member}" is not a row, {wanted}')
        for number, claim in enumerate(self.claims):
            for one in claim.rows:
                if one not in self.models:
                    raise ValueError(f'claims.{number}: "{one}" is not a row, {wanted}')
            if claim.on.startswith(("test_ten", "test_scales")) and not self.evaluation.scales_px:
                raise ValueError(
                    f"claims.{number}.on: {claim.on} is a score of photographs; small images have "
                    "train_error_pct, val_error_pct and test_error_pct"
                )
        for name, tune in self.tune.items():
            if tune.model not in self.models:
                raise ValueError(f'tune.{name}.model: "{tune.model}" is not a row, {wanted}')
        for name, row in self.models.items():
            if (search := row.tuned_by) is not None and search not in self.tune:
                raise ValueError(
                    f"models.{name}.schedule: {row.schedule} is the result of a search, but tune has no "
                    f"search {search}; it has {', '.join(self.tune)}"
                )
        return self

    @model_validator(mode="after")
    def _data_fit(self) -> Self:
        if (self.evaluation.scales_px is not None) != isinstance(self.data, Sharded):
            raise ValueError(
                f"evaluation.scales_px is {self.evaluation.scales_px} with data of kind "
                f"{self.data.kind}: photographs are tested at several scales (the paper: 224, 256, "
                "384, 480, 640), small images are not (null)"
            )
        for name, row in self.models.items():
            _augmentation_fits(f"models.{name}.augmentation", row.augmentation, self.data)
        return self


def _augmentation_fits(place: str, recipe: Augmentation, data: Data) -> None:
    if recipe.crop_px is None and data.side_px is None:
        raise ValueError(
            f"{place}.kind {recipe.kind} with data of kind {data.kind}, whose images differ in size: "
            "use scale_crop (section 3.4) or random_resized_crop"
        )
    if isinstance(recipe, PadCrop) and data.side_px and data.side_px <= 2 * recipe.pad_px:
        raise ValueError(
            f"{place}.pad_px {recipe.pad_px}: twice that must be less than the image's {data.side_px} "
            "pixels"
        )
