"""report.json: what it holds, as types; docs/schema/report.json is made from them.

Errors and their intervals are in percent, `_ci95` are 95 % intervals [low, high]; NLL is in nats, ECE a
fraction, times are in seconds.
"""

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from pipeline.checkpoint import Record
from pipeline.report.claims.claim import Verdict
from pipeline.report.predicted import Bin, Missed

CLOSED = ConfigDict(extra="forbid")
Interval = list[float]


@with_config(CLOSED)
class RowResult(TypedDict):
    """A row of `models`: its network, its training and its scores.

    `group` is equal for rows that differ only in their seed, `comparable` for those that also differ in the
    network. `responses` are the standard deviations of figure 7, by layer.
    """

    name: str
    group: str
    comparable: str
    arch: str
    family: str
    kind: Literal["plain", "residual", "other"]
    block: str
    depth: int
    option: str
    parameters: int
    multiply_adds: int
    schedule: str
    is_the_papers_recipe: NotRequired[bool]  # earlier reports do not say it
    learning_rate_factor: float
    seed: int
    commit: str
    hardware: str
    torch: str
    source: str | None
    instance: int
    threads: int
    precision: str
    workers: int
    global_batch_size: int
    run_key: str
    weights_sha256: str
    paper_test_error_pct: float | None
    paper_ten_crops: list[float | None] | tuple[float, float | None] | None
    paper_scales: list[float | None] | tuple[float, float | None] | None
    scores: dict[str, float | int | Interval | None]
    calibration: list[Bin]
    confusion: list[list[int]] | None
    responses: list[float]
    history: list[Record]


@with_config(CLOSED)
class Summary(TypedDict):
    """A score over seeds."""

    mean: float
    sd: float | None
    ci95: Interval


@with_config(CLOSED)
class Group(TypedDict):
    """Rows that differ only in their seed; it has the name of the first."""

    name: str
    kind: str
    depth: int
    paper_test_error_pct: float | None
    rows: list[str]
    seeds: list[int]
    updates: int
    train_error_pct: Summary
    val_error_pct: Summary
    test_error_pct: Summary
    test_ten_crops_error_pct: NotRequired[Summary]
    test_scales_error_pct: NotRequired[Summary]


@with_config(CLOSED)
class JudgedClaim(TypedDict):
    """A claim with its verdict; `value`, `interval` and `bound` are in `unit`."""

    claim: str
    source: str
    of: Literal["paper", "budget", "own"]
    verdict: Verdict
    evidence: str
    must_be: Literal["above", "below", "within"]
    bound: float
    value: float | None
    interval: tuple[float, float] | None
    unit: str
    needed: str
    missing: dict[str, Any]
    like: str


@with_config(CLOSED)
class SearchResult(TypedDict):
    """A search: its trials (tuned/<search>.csv), best first, and their curves."""

    name: str
    model: str
    trials: list[dict[str, str]]
    curves: list[dict[str, float]]


@with_config(CLOSED)
class StageTime(TypedDict):
    """How long a stage took."""

    stage: str
    seconds: float


@with_config(CLOSED)
class Report(TypedDict):
    """The document. `version` is raised when what is there changes its name or its meaning."""

    version: int
    study: str
    data: dict[str, Any]
    chance_error_pct: float
    rows: list[RowResult]
    groups: list[Group]
    verdicts: list[JudgedClaim]
    claims_of_the_paper: int
    claims_decided: int
    searches: list[SearchResult]
    scales_px: list[int] | tuple[int, ...] | None
    ensemble: dict[Literal["declared", "greedy"], dict[str, Any]]
    missed_by_all: list[Missed]
    plan: dict[str, Any] | None
    stages: list[StageTime]
    versions: NotRequired[dict[str, str]]  # earlier reports do not say it
    reference: dict[str, Any] | None


REPORT: TypeAdapter[Report] = TypeAdapter(Report)
