"""Typed mirror of params.yaml, and its only reader.

The document is closed and complete: an unknown key is an error and nothing has a default, so what
a study does is written in one file. Every stage validates the whole document when it loads it.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self, assert_never

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import ParamsError

PARAMS = Path("params.yaml")
CIFAR10_SIZE_PX = 32
TUNED = "tuned"


class Section(BaseModel):
    """A frozen, closed part of the document; an unknown key is answered with the nearest known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                wanted = f'"{near[0]}"' if near else "one of " + ", ".join(cls.model_fields)
                raise PydanticCustomError(
                    "unknown_key", 'unknown key "{key}", wanted {wanted}: correct or remove it',
                    {"key": str(key), "wanted": wanted},
                )  # fmt: skip
        return given


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("wanted 64 lower-case hexadecimal digits, as `sha256sum FILE` prints them")
    return value


def _row_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", value):
        raise ValueError("wanted a name of lower-case letters, digits, - and _")
    return value


def _schedule_file(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".yaml":
        raise ValueError("wanted a .yaml file inside the study, such as schedules/paper-cifar.yaml")
    if path.parts[0] == TUNED and len(path.parts) != 2:
        raise ValueError(f"wanted {TUNED}/<name of a search in tune>.yaml")
    return value


def _cifar_depth(value: int) -> int:
    if value < 8 or (value - 2) % 6:
        below = max(8, value - (value - 2) % 6)
        raise ValueError(
            f"found {value}, wanted 6n+2 (section 4.2 of the paper): take {below} or {below + 6}"
        )
    return value


Sha256 = Annotated[str, AfterValidator(_sha256)]
RowName = Annotated[str, AfterValidator(_row_name)]
ScheduleFile = Annotated[str, AfterValidator(_schedule_file)]
CifarDepth = Annotated[int, AfterValidator(_cifar_depth)]
Shortcut = Literal["none", "A", "B", "C"]
Precision = Literal["float32", "tf32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


# --- data ---------------------------------------------------------------------------------------
# `duplicates_pct` of each kind: how many of the validation or test images, in percent, may be training images
# too, by their content, before `prepare` stops.


class DigitsData(Section):
    """The 1,797 handwritten digits that scikit-learn ships (UCI), 8x8, resized; no download.

    The split is random over all images and so mixes writers: the nearest neighbour in raw pixels errs
    on 0.8 % of such test images, and on 4.3 % of those of writers that are held out.
    """

    kind: Literal["digits"]
    image_size_px: PositiveInt
    test_images: PositiveInt
    val_images: PositiveInt
    split_seed: NonNegativeInt
    duplicates_pct: Percent


class Cifar10Data(Section):
    """CIFAR-10 in its official archive (python version); val is cut from the training part."""

    kind: Literal["cifar10"]
    archive: str
    sha256: Sha256
    val_images: PositiveInt
    split_seed: NonNegativeInt
    duplicates_pct: Percent


class _Folders(Section):
    """Images in `<split>/<class>/`: an archive with its sha256, or without one a place that ends in /.

    Such a place begins with `PLACE`, and errors call it `PLACE_NAME`.
    """

    PLACE: ClassVar[str]
    PLACE_NAME: ClassVar[str]
    archive: str
    sha256: Sha256 | None
    train_split: str
    test_split: str

    @model_validator(mode="after")
    def _test_is_not_train(self) -> Self:
        if self.train_split == self.test_split:
            raise ValueError(
                f"train_split and test_split are both {self.train_split}: the test images must be "
                "others; name two folders"
            )
        return self

    @model_validator(mode="after")
    def _archive_has_checksum(self) -> Self:
        place = self.archive.startswith(self.PLACE) and self.archive.endswith("/")
        if place != (self.sha256 is None):
            raise ValueError(
                f"archive {self.archive}: an archive needs its sha256 (`sha256sum FILE`), "
                f"and {self.PLACE_NAME} ending in / has `sha256: null`"
            )
        return self


class ImageFolderData(_Folders):
    """Images in `<split>/<class>/`, in an archive or under an s3:// prefix.

    `archive` is a file name that the mirrors know, or an http(s):// or s3:// address of one, with
    its sha256; or an s3:// prefix that ends in `/`, with `sha256: null`.
    """

    PLACE, PLACE_NAME = "s3://", "an s3:// prefix"
    kind: Literal["imagefolder"]
    image_size_px: PositiveInt
    val_images: PositiveInt
    split_seed: NonNegativeInt
    duplicates_pct: Percent


class _Sharded(Section):
    """Photographs of any size, packed into shards on S3 and read from there while training.

    `shorter_side_px` limits the shorter side (a longer one is resized and written as JPEG of
    `jpeg_quality`); null for both keeps every file as it is. A shard holds files of about
    `shard_mb` million bytes, counted before they are made smaller. Training
    shuffles the shards, and then the images of `shuffle_shards` shards at a time.
    `undecodable_images` is how many may be left out.
    """

    val_images: PositiveInt
    split_seed: NonNegativeInt
    duplicates_pct: Percent
    shorter_side_px: PositiveInt | None
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] | None
    shard_mb: Annotated[float, Field(gt=0, le=1000)]
    shuffle_shards: PositiveInt
    undecodable_images: NonNegativeInt

    @model_validator(mode="after")
    def _quality_belongs_to_size(self) -> Self:
        if (self.shorter_side_px is None) != (self.jpeg_quality is None):
            raise ValueError(
                f"shorter_side_px is {self.shorter_side_px} and jpeg_quality {self.jpeg_quality}: "
                "give both, or null for both to keep the files as they are"
            )
        return self


class ImageNetData(_Sharded):
    """ImageNet (ILSVRC2012) from its three official archives, which the mirrors must have.

    Its validation part is the test set here; val is cut from its training part.
    """

    kind: Literal["imagenet"]


class PhotosData(_Folders, _Sharded):
    """Photographs in ImageNet's layout, `<split>/<class>/<image>`.

    `archive` is a tar or zip that the mirrors know, or an http(s):// or s3:// address of one, with
    its sha256; or, ending in `/`, a folder that a mirror has or an s3:// prefix, with `sha256: null`.
    """

    PLACE, PLACE_NAME = "", "a folder or prefix"
    kind: Literal["photos"]


Small = DigitsData | Cifar10Data | ImageFolderData
Sharded = ImageNetData | PhotosData
Data = Annotated[
    DigitsData | Cifar10Data | ImageFolderData | ImageNetData | PhotosData,
    Field(discriminator="kind"),
]


# --- a row --------------------------------------------------------------------------------------


class _Interval(Section):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: exchange them")
        return self


class Range(_Interval):
    """A closed interval."""

    low: NonNegativeFloat
    high: NonNegativeFloat


class Span(_Interval):
    """A closed interval of whole numbers."""

    low: PositiveInt
    high: PositiveInt


class Elastic(Span):
    """As many workers as there is room for, which may change during a training.

    Batch-norm statistics are taken over a worker's share, so that such a training gives up the
    promise of identical bits.
    """

    elastic: Literal[True]


class _Network(Section):
    block: Literal["plain", "basic", "bottleneck"]
    shortcut: Shortcut

    @model_validator(mode="after")
    def _shortcut_belongs_to_block(self) -> Self:
        if self.block == "plain" and self.shortcut != "none":
            raise ValueError(
                f"shortcut {self.shortcut} on a plain network, which has none: take shortcut none, "
                "or block basic"
            )
        if self.block != "plain" and self.shortcut == "none":
            raise ValueError(
                f"shortcut none with block {self.block}, which is residual: take A, B or C "
                "(section 3.3), or block plain"
            )
        return self


class CifarNetwork(_Network):
    """The family of section 4.2: depth 6n+2 of plain or basic blocks, 16, 32 and 64 channels wide.

    `shortcut` is the option (section 3.3) where dimensions grow; plain networks have "none".
    """

    family: Literal["cifar"]
    block: Literal["plain", "basic"]
    depth: CifarDepth

    @field_validator("block", mode="before")
    @classmethod
    def _has_no_bottleneck(cls, block: object) -> object:
        if block == "bottleneck":
            raise ValueError(
                "the CIFAR family has no bottleneck networks (section 4.2): take block basic, or "
                "family imagenet with depth 50, 101 or 152"
            )
        return block


IMAGENET_DEPTHS = {"plain": (18, 34), "basic": (18, 34), "bottleneck": (50, 101, 152)}


class ImageNetNetwork(_Network):
    """The family of Table 1: plain and basic blocks at 18 and 34 layers, bottlenecks above."""

    family: Literal["imagenet"]
    depth: int

    @model_validator(mode="after")
    def _is_in_the_table(self) -> Self:
        depths = IMAGENET_DEPTHS[self.block]
        if self.depth not in depths:
            raise ValueError(
                f"depth {self.depth} with block {self.block} is not in Table 1 of the paper, which "
                f"has depth {' or '.join(map(str, depths))} for it: change depth or block"
            )
        return self


Network = Annotated[CifarNetwork | ImageNetNetwork, Field(discriminator="family")]


class Optimizer(Section):
    """SGD; weight decay is applied to every parameter, as the paper's Caffe solver does."""

    momentum: Fraction
    weight_decay: NonNegativeFloat


class PadCrop(Section):
    """Section 4.2: zeros on each side, a random crop of the original size, a random mirror image."""

    kind: Literal["pad_crop"]
    pad_px: NonNegativeInt
    mirror: bool


class ScaleCrop(Section):
    """Section 3.4: the shorter side drawn from a range, a random crop, a mirror image, colour.

    `colour_sd` is the standard deviation of AlexNet's principal-component colour change, 0.1 in the
    paper's recipe; 0 for none.
    """

    kind: Literal["scale_crop"]
    shorter_side_px: Span
    crop_px: PositiveInt
    mirror: bool
    colour_sd: NonNegativeFloat

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop_px > self.shorter_side_px.low:
            raise ValueError(
                f"crop_px {self.crop_px} is above shorter_side_px.low {self.shorter_side_px.low}: "
                "the crop must fit into the smallest image; change one of the two"
            )
        return self


class RandomResizedCrop(Section):
    """Not the paper's: a crop of random area and aspect ratio, resized (Szegedy et al. 2015)."""

    kind: Literal["random_resized_crop"]
    crop_px: PositiveInt
    area_fraction: Range
    aspect_ratio: Range
    mirror: bool

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0 < self.area_fraction.low <= self.area_fraction.high <= 1:
            raise ValueError("area_fraction must lie above 0 and not above 1")
        if self.aspect_ratio.low <= 0:
            raise ValueError("aspect_ratio.low must be above 0")
        return self


Augmentation = Annotated[PadCrop | ScaleCrop | RandomResizedCrop, Field(discriminator="kind")]


class Row(Section):
    """One network with one seed: one training, one run key, one MLflow run.

    The learning rate of an update is the schedule's, times `learning_rate_factor`. `workers` and
    `gradient_accumulation_steps` belong to what is computed, since batch-norm statistics are taken
    over a worker's share, in as many pieces; workers may be elastic. `threads` is how many a worker
    computes with on a CPU, and on which the last bits of its sums depend; a machine with fewer cores
    is slower and ends with the same bits. `averaged_batch_norm_batches`
    is how many batches the final statistics are averaged over after training, as in the authors'
    release; 0 keeps the running ones. `activation_checkpointing` trades a second forward pass for
    memory.
    """

    network: Network
    schedule: ScheduleFile
    learning_rate_factor: PositiveFloat
    optimizer: Optimizer
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    augmentation: Augmentation
    global_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt
    activation_checkpointing: bool
    averaged_batch_norm_batches: NonNegativeInt
    seed: NonNegativeInt
    precision: Precision
    threads: PositiveInt
    workers: PositiveInt | Elastic
    report_every_updates: PositiveInt

    @property
    def crop_px(self) -> int | None:
        """The side of training crops; None where images keep their size."""
        match self.augmentation:
            case PadCrop():
                return None
            case ScaleCrop() | RandomResizedCrop():
                return self.augmentation.crop_px
        assert_never(self.augmentation)

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


# --- search, ensemble, evaluation ---------------------------------------------------------------


class SearchSpace(Section):
    """Learning-rate schedules; fractions are of `total_updates`, base_lr is drawn in logarithm."""

    base_lr: Range
    shapes: tuple[Literal["step", "cosine"], ...] = Field(min_length=1)
    warmup_fraction: Range
    first_drop_fraction: Range
    second_drop_fraction: Range

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.base_lr.low <= 0:
            raise ValueError("base_lr.low must be above 0: it is drawn in logarithm")
        if self.second_drop_fraction.high >= 1:
            raise ValueError(
                "second_drop_fraction.high must be below 1: a drop at the last update has no effect"
            )
        if self.warmup_fraction.high >= 1:
            raise ValueError("warmup_fraction.high must be below 1")
        return self


class Tune(Section):
    """A search for a schedule by successive halving, judged on val alone; it writes `tuned/<name>.yaml`.

    `model` names the row whose network is searched. Of `trials` that train to `grace_updates`, one in
    `reduction_factor` goes on to that many times the updates, and so on to `total_updates`. A search
    that takes longer than `time_limit_s` (seconds) stops undecided and goes on the next time: neither
    this nor the number of trials changes what a trial finds.
    """

    model: RowName
    trials: PositiveInt
    total_updates: PositiveInt
    grace_updates: PositiveInt
    reduction_factor: Annotated[int, Field(ge=2)]
    report_every_updates: PositiveInt
    time_limit_s: PositiveFloat
    seed: NonNegativeInt
    space: SearchSpace

    @model_validator(mode="after")
    def _grace_within_total(self) -> Self:
        if self.grace_updates > self.total_updates:
            raise ValueError(
                f"grace_updates {self.grace_updates} is above total_updates {self.total_updates}"
            )
        if self.grace_updates % self.report_every_updates:
            raise ValueError(
                f"grace_updates {self.grace_updates} is no multiple of report_every_updates "
                f"{self.report_every_updates}: trials are compared at reports"
            )
        return self


class Ensemble(Section):
    """Rows whose softmax probabilities are averaged; a greedy choice is made on val besides."""

    members: tuple[RowName, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("a member is named twice: name each row once")
        return self


class Evaluation(Section):
    """How scores are computed.

    `scales_px` are the shorter sides of section 3.4's fully convolutional test; photographs have
    them, and small images, which are tested as they are, have null.
    """

    scales_px: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None
    bootstrap_resamples: Annotated[int, Field(ge=100)]
    bootstrap_seed: NonNegativeInt
    calibration_bins: PositiveInt


class Execution(Section):
    """Where and how wide things run; no stage depends on it, so changing it reruns nothing.

    `worker_cpus` and `worker_gpus` (a share of one, or several) are what a worker or a trial reserves
    on a cluster; on this machine it reserves a core for each thread of its row, and `worker_gpus`
    where there are GPUs (0: a whole one). `trials_at_once` is the most of a search.
    """

    trials_at_once: PositiveInt
    worker_cpus: PositiveInt
    worker_gpus: NonNegativeFloat

    @property
    def share(self) -> dict[str, float]:
        """What one worker takes of a cluster, by Ray's names."""
        return {"CPU": self.worker_cpus, "GPU": self.worker_gpus}


class Study(Section):
    """The whole document."""

    study: RowName
    data: Data
    tune: dict[RowName, Tune] = Field(min_length=1)
    models: dict[RowName, Row] = Field(min_length=1)
    ensemble: Ensemble
    evaluation: Evaluation
    execution: Execution

    @model_validator(mode="after")
    def _names_are_rows(self) -> Self:
        wanted = "wanted a key of models: " + ", ".join(self.models)
        for member in self.ensemble.members:
            if member not in self.models:
                raise ValueError(f'ensemble.members: "{member}" is not a row, {wanted}')
        for name, tune in self.tune.items():
            if tune.model not in self.models:
                raise ValueError(f'tune.{name}.model: "{tune.model}" is not a row, {wanted}')
        for name, row in self.models.items():
            if (search := row.tuned_by) is not None and search not in self.tune:
                raise ValueError(
                    f"models.{name}.schedule: {row.schedule} is what a search finds, and tune has no "
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
    if not isinstance(recipe, PadCrop):
        return
    match data:
        case ImageNetData() | PhotosData():
            raise ValueError(
                f"{place}.kind pad_crop with data of kind {data.kind}, whose images differ in size: take "
                "scale_crop (section 3.4) or random_resized_crop"
            )
        case Cifar10Data():
            size = CIFAR10_SIZE_PX
        case DigitsData() | ImageFolderData():
            size = data.image_size_px
        case _:
            assert_never(data)
    if size <= 2 * recipe.pad_px:
        raise ValueError(
            f"{place}.pad_px {recipe.pad_px}: twice of it must be less than the image's {size} pixels"
        )


# --- reading ------------------------------------------------------------------------------------


def read_yaml(path: Path, wanted_by: str = "") -> Any:
    """Returns the YAML 1.2 document at `path`; raises ParamsError where it is none.

    `wanted_by` is the key of params.yaml that names the file.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if wanted_by:
            there = sorted(str(found) for found in path.parent.glob("*.yaml"))
            near = difflib.get_close_matches(str(path), there, n=3, cutoff=0.3)
            found = f"the folder has {', '.join(near or there[:8]) or 'no such file'}"
            raise ParamsError(
                f"params.yaml: {wanted_by}: {path} does not exist; {found}: correct the name or write it"
            ) from None
        raise ParamsError(f"{path}: not found: run this in the study's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not a YAML document: {error}") from None


def validate(kind: Any, document: Any, where: str) -> Any:
    """Returns `document` as `kind`; raises ParamsError with a line for each fault.

    Rows that have the same fault share a line: where one YAML anchor is the cause, one is said.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        found = [_fault(fault, document) for fault in error.errors()]
    rows: dict[tuple[str, str], list[str]] = {}
    for key, message in found:
        if key[:1] == ["models"] and len(key) > 1:
            rest = key[1:]
            rows.setdefault((".".join(rest[1:]), message), []).append(rest[0])
        else:
            rows.setdefault((".".join(key), message), [])
    lines = []
    for (inner, message), names in rows.items():
        place = ".".join(part for part in (*(("models", names[0]) if names else ()), inner) if part)
        message += also_in(names)
        lines.append(f"{where}: {place}: {message}" if place else f"{where}: {message}")
    raise ParamsError("\n".join(lines)) from None


def also_in(names: Sequence[str]) -> str:
    """Returns what a message about the first of some rows adds where others share its fault."""
    return f" (and in {len(names) - 1} more rows)" if len(names) > 1 else ""


def together(judged: Iterable[Callable[[], object]]) -> None:
    """Calls each; raises ParamsError with the lines of all that raised it."""
    faults = []
    for judge in judged:
        try:
            judge()
        except ParamsError as error:
            faults.append(str(error))
    if faults:
        raise ParamsError("\n".join(faults))


def _fault(fault: Any, document: Any) -> tuple[list[str], str]:
    """Returns a fault's place in the document, as its keys, and what is wrong there.

    What pydantic puts between them (the kind of a union that it tried) is in no document.
    """
    *inner, last = fault["loc"] or ("",)
    key: list[str] = []
    for part in inner:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            continue
        key.append(str(part))
    is_there = _has(document, last)
    if is_there or fault["type"] == "missing":
        key.append(str(last))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return key, "missing; the document has no defaults: add it"
    if document is None and not key:
        wanted = ", ".join(Study.model_fields)
        return (
            key,
            f"empty, wanted the keys {wanted}: `make params STUDY=digits` puts a study there",
        )
    found = fault["input"]
    shown = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
    return key, f"{message}{shown}" if key else message


def _has(document: Any, key: Any) -> bool:
    try:
        document[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def load(path: Path = PARAMS) -> Study:
    """Returns the validated study; raises ParamsError with a line for each fault."""
    study: Study = validate(Study, read_yaml(path), str(path))
    return study


def digest(study: Study) -> str:
    """Returns the sha256 of a study's content, whatever its comments and order."""
    return canonical_sha256(study.model_dump(mode="json"))


def canonical_sha256(document: Any) -> str:
    """Returns the sha256 of a JSON-like value with sorted keys and no spaces."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def row_of(study: Study, name: str) -> Row:
    """Returns the row `name`; raises ParamsError where models has none."""
    if name not in study.models:
        raise ParamsError(
            f'params.yaml: models has no row "{name}"; it has {", ".join(study.models)}'
        )
    return study.models[name]
