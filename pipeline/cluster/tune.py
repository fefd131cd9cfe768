"""Searches a learning-rate schedule with Ray Tune: Optuna's TPE proposes, ASHA stops.

Judged on the validation split alone. Every trial is a training of its own with its own key, and its
outcome is a JSON object on S3, written as soon as it is known. A search that was interrupted learns
from the finished trials and resumes the unfinished ones from their checkpoints; Tune's own state is
not read back (docs/adr/0001). Not reproducible: which trials ASHA stops, and what TPE proposes next,
depend on which of several trials reports first, and a time limit on the machine's speed.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from ray import tune as ray_tune
from ray.tune import Callback, FailureConfig
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from pipeline import machine
from pipeline.cluster import session
from pipeline.cluster.again import MAX_FAILURES, PATIENCE_S
from pipeline.errors import DivergedError, StudyError, TrainingError
from pipeline.models.predict import device
from pipeline.params import Execution, Row, Tune, canonical_sha256, validate
from pipeline.progress import Progress
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.datasets import DataSets
from pipeline.storage.s3 import Storage
from pipeline.storage.shards import ShardCache
from pipeline.storage.trials import TrialStore
from pipeline.training.hardware import require
from pipeline.training.history import Record
from pipeline.training.identity import KEY_LENGTH, run_key
from pipeline.training.job import TrainJob
from pipeline.training.run import run
from pipeline.training.schedule import Schedule

FOLLOW_EVERY_S = 3.0
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
WARMUP_START_FRACTION = 0.1  # of base_lr, as the paper's 0.01 before 0.1 (section 4.2)

POINT = ("base_lr", "shape", "warmup_fraction", "first_drop_fraction", "second_drop_fraction")
WORST = {"val_error_pct": 100.0, "val_loss": float("inf"), "diverged": True}
REPORTED = ("update", "val_error_pct", "val_loss")
Status = Literal["running", "complete", "stopped", "diverged"]


@dataclass(frozen=True)
class Trial:
    """One schedule and how it did; `stopped` by ASHA or the time limit before the last update."""

    key: str
    point: dict[str, Any]
    schedule: Schedule
    status: Status = "running"
    history: tuple[Record, ...] = ()
    order: int = 0

    @property
    def updates(self) -> int:
        """The number of updates trained."""
        return self.history[-1].update if self.history else 0

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sorts best first: trained longest, then validation error, then validation loss."""
        if not self.history or self.status == "diverged":
            return 0.0, 100.0, float("inf")
        return -self.updates, self.history[-1].val_error_pct, self.history[-1].val_loss


def schedule_of(point: dict[str, Any], total_updates: int) -> Schedule:
    """Returns the schedule at a point of the search space."""
    warmup = round(point["warmup_fraction"] * total_updates)
    document: dict[str, Any] = {
        "shape": point["shape"],
        "base_lr": float(f"{point['base_lr']:.4g}"),
        "total_updates": total_updates,
        "warmup": None,
    }
    if warmup:
        start = float(f"{point['base_lr'] * WARMUP_START_FRACTION:.4g}")
        document["warmup"] = {"kind": "linear", "updates": warmup, "start_lr": start}
    if point["shape"] == "step":
        fractions = (point["first_drop_fraction"], point["second_drop_fraction"])
        drops = {min(max(round(f * total_updates), 1), total_updates - 1) for f in fractions}
        document["drops"] = sorted(drops)
    schedule: Schedule = validate(Schedule, document, "trial")
    return schedule


class Search:
    """A search by its key on S3: `run` brings it to its end, `best` returns its trials.

    `arrays` is the data set's file; None on a cluster, where each node fetches it by its digest.
    """

    def __init__(
        self, tune: Tune, row: Row, arrays: Path | None, data_digest: str, storage: Storage
    ) -> None:
        self.tune, self.row = tune, row
        # what the search does not use must not change its trials' keys
        self._row = row.model_copy(
            update={
                "learning_rate_factor": 1.0,
                "workers": 1,
                "report_every_updates": tune.report_every_updates,
                "schedule": "trial.yaml",
            }
        )
        self._arrays = arrays.resolve() if arrays else None  # trials run in folders of their own
        self._digest, self.storage = data_digest, storage
        self.key = canonical_sha256(
            {
                "tune": tune.model_dump(mode="json", exclude={"time_limit_s"}),
                "base": self.trial(_middle(tune)).key,
            }
        )[:KEY_LENGTH]
        self._outcomes = TrialStore(storage, self.key)

    def is_of(self, facts: dict[str, Any], data_digest: str) -> bool:
        """Tells whether a checkpoint is of a trial of this row and data, whatever code made it."""
        schedule = validate(Schedule, facts["trained"]["schedule"], "checkpoint")
        job = TrainJob("trial", "", self._row, schedule, Path(), 0.0)
        return job.is_of(facts, data_digest)

    def trial(self, point: dict[str, Any]) -> Trial:
        """Returns the trial at a point of the space, not yet begun."""
        schedule = schedule_of(point, self.tune.total_updates)
        key, _ = run_key("", self._row, schedule, self._digest)
        return Trial(key, point, schedule)

    def job(self, trial: Trial) -> TrainJob:
        """Returns the training of a trial."""
        arrays = self._arrays or DataSets(self.storage).cached(self._digest)
        return TrainJob(
            f"trial {trial.key[:8]}",
            trial.key,
            self._row,
            trial.schedule,
            arrays,
            time.time(),
        )

    def trials(self) -> list[Trial]:
        """Returns the trials known so far, in the order of their start."""
        found = []
        for key in self._outcomes.keys():  # noqa: SIM118 - not a dict
            facts = self._outcomes.get(key)
            if facts is None:
                continue
            history = tuple(Record(**record) for record in facts["history"])
            found.append(
                replace(
                    self.trial(facts["point"]),
                    status=facts["status"],
                    history=history,
                    order=facts["order"],
                )
            )
        return sorted(found, key=lambda trial: trial.order)

    def line(self, trial: Trial) -> dict[str, Any]:
        """Returns the trial's line of tuned/trials.csv."""
        last = trial.history[-1] if trial.history else None
        schedule = trial.schedule
        return {
            "search": self.key,
            "trial": trial.key,
            "status": trial.status,
            "updates": trial.updates,
            "val_error_pct": last.val_error_pct if last else "",
            "val_loss": last.val_loss if last else "",
            "seconds": round(last.seconds, 2) if last else 0,
            "shape": schedule.shape,
            "base_lr": schedule.base_lr,
            "warmup_updates": getattr(schedule.warmup, "updates", 0),
            "drops": " ".join(str(drop) for drop in getattr(schedule, "drops", ())),
        }

    def clear(self) -> None:
        """Forgets all trials, so that the search begins afresh."""
        for trial in self.trials():
            CheckpointStore(self.storage, trial.key).clear()
            self._outcomes.delete(trial.key)

    def save(self, trial: Trial) -> None:
        """Stores what is known of a trial."""
        facts = {
            "point": trial.point,
            "status": trial.status,
            "order": trial.order,
            "history": [asdict(record) for record in trial.history],
        }
        self._outcomes.save(trial.key, facts)

    def finished(self) -> list[Trial]:
        """Returns the trials that ended, in the order of their start."""
        return [trial for trial in self.trials() if trial.status != "running"]

    @property
    def is_done(self) -> bool:
        """Tells whether all trials have ended."""
        return len(self.finished()) >= self.tune.trials

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the context lasts, shows how many trials of a search elsewhere have ended."""
        done = threading.Event()

        def follow() -> None:
            with Progress("search", self.tune.trials, "trials", len(self.finished())) as progress:
                while not done.wait(FOLLOW_EVERY_S):
                    with suppress(StudyError):
                        progress.to(len(self.finished()))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(FOLLOW_EVERY_S)

    def run(self, at_once: int, share: dict[str, float]) -> None:
        """Brings the search to its end, `at_once` trials side by side, each with its `share`.

        Ray has been started or joined.
        """
        known = self.trials()
        finished = [trial for trial in known if trial.status != "running"]
        if known:
            print(f"search {self.key[:8]}: {len(finished)} trials are done, going on", flush=True)
        unfinished = [trial for trial in known if trial.status == "running"]
        self._fit(finished, unfinished, at_once, share)
        for trial in self.finished():
            CheckpointStore(self.storage, trial.key).clear()

    def best(self) -> list[Trial]:
        """Returns the trials that ended, best first.

        Raises TrainingError where none of them reached a report.
        """
        finished = self.finished()
        best = sorted(finished, key=lambda trial: trial.rank)
        if not best or best[0].rank[0] == 0.0:
            raise TrainingError(
                f"none of {self.tune.trials} trials reached a first report: raise tune.time_limit_s "
                "or lower tune.space.base_lr in params.yaml"
            )
        return best

    def _fit(
        self,
        finished: list[Trial],
        unfinished: list[Trial],
        at_once: int,
        share: dict[str, float],
    ) -> None:
        tune = self.tune
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        searcher = OptunaSearch(
            space=_distributions(tune),
            metric="val_error_pct",
            mode="min",
            sampler=optuna.samplers.TPESampler(seed=tune.seed + len(finished), n_startup_trials=4),
            points_to_evaluate=[trial.point for trial in unfinished] or None,
        )
        for trial in finished:
            searcher.add_evaluated_point(trial.point, trial.rank[1])
        left = tune.trials - len(finished)
        deadline = time.monotonic() + tune.time_limit_s
        with (
            tempfile.TemporaryDirectory(prefix="ray-tune-") as scratch,
            Progress("search", tune.trials, "trials", len(finished)) as progress,
            _keys_kept_here(),
        ):
            results = ray_tune.Tuner(
                ray_tune.with_resources(_trainable(self), ray_tune.PlacementGroupFactory([share])),
                tune_config=ray_tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=ASHAScheduler(
                        time_attr="update",
                        metric="val_error_pct",
                        mode="min",
                        max_t=tune.total_updates,
                        grace_period=tune.grace_updates,
                        reduction_factor=tune.reduction_factor,
                    ),
                    num_samples=left,
                    max_concurrent_trials=at_once,
                    time_budget_s=tune.time_limit_s,
                    reuse_actors=True,
                ),
                run_config=ray_tune.RunConfig(
                    name=f"{self.key}-{time.time_ns()}",
                    storage_path=scratch,
                    verbose=0,
                    failure_config=FailureConfig(max_failures=MAX_FAILURES),  # from checkpoints
                    callbacks=[Recorder(self, len(finished), progress)],
                ),
            ).fit()
        if results.errors:
            raise TrainingError(
                f"{len(results.errors)} of the search's trials failed; the first: "
                f"{str(results.errors[0]).strip().splitlines()[-1]}: `dvc repro` resumes them"
            )
        if time.monotonic() >= deadline:  # Tune stops what still runs without telling callbacks
            for trial in self.trials():
                if trial.status == "running" and trial.history:
                    self.save(replace(trial, status="stopped"))


def search_here(search: Search, execution: Execution) -> None:
    """Searches on this machine's cores, and its GPUs where it has some."""
    require(search.row.precision, f"models.{search.tune.model}.precision")
    cores = machine.cores()
    cpus = min(search.row.threads, cores)
    at_once = min(execution.trials_at_once, cores // cpus)
    gpus = torch.cuda.device_count() / at_once  # several small networks on one GPU
    with session.embedded():
        search.run(at_once, {"CPU": cpus, "GPU": gpus})


def search_there(spec: dict[str, Any]) -> None:
    """Searches by a document (`stages.where`) on the cluster that this driver has joined."""
    search = Search(
        validate(Tune, spec["tune"], "job"),
        validate(Row, spec["row"], "job"),
        None,
        spec["data"],
        Storage(patience_s=PATIENCE_S),
    )
    search.run(spec["at_once"], spec["share"])


@contextmanager
def _keys_kept_here() -> Iterator[None]:
    """Hides S3's keys from Ray Tune, which would give them to its trials by way of Ray's logs.

    Trials have them from their node; this process's own client was made before.
    """
    hidden = {name: os.environ.pop(name) for name in KEYS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _middle(tune: Tune) -> dict[str, Any]:
    space = tune.space
    return {
        "base_lr": space.base_lr.low,
        "shape": space.shapes[0],
        "warmup_fraction": space.warmup_fraction.low,
        "first_drop_fraction": space.first_drop_fraction.low,
        "second_drop_fraction": space.second_drop_fraction.low,
    }


def _distributions(tune: Tune) -> dict[str, Any]:
    space = tune.space
    return {
        "base_lr": FloatDistribution(space.base_lr.low, space.base_lr.high, log=True),
        "shape": CategoricalDistribution(space.shapes),
        "warmup_fraction": FloatDistribution(space.warmup_fraction.low, space.warmup_fraction.high),
        "first_drop_fraction": FloatDistribution(
            space.first_drop_fraction.low, space.first_drop_fraction.high
        ),
        "second_drop_fraction": FloatDistribution(
            space.second_drop_fraction.low, space.second_drop_fraction.high
        ),
    }


def _trainable(search: Search) -> Callable[[dict[str, Any]], None]:
    def trial(point: dict[str, Any]) -> None:
        cpus = ray_tune.get_context().get_trial_resources().required_resources["CPU"]
        require(search.row.precision, f"models.{search.tune.model}.precision")  # of this node
        job = search.job(search.trial(point))

        def report(history: list[Record]) -> None:
            last = asdict(history[-1])
            lines = [asdict(record) for record in history]
            ray_tune.report({name: last[name] for name in REPORTED} | {"history": lines})

        checkpoints = CheckpointStore(search.storage, job.key)
        try:
            state = run(
                job,
                checkpoints,
                device=device(),
                files=ShardCache(search.storage, max(1, int(cpus))),
                on_report=report,
            )
        except DivergedError:
            ray_tune.report({**WORST, "update": search.tune.total_updates, "history": []})
        else:
            report(state.history)  # a trial that was resumed at its end has told nothing yet

    return trial


class Recorder(Callback):
    """Stores each trial as it starts and ends; one that failed stays unfinished, to be resumed."""

    def __init__(self, search: Search, first: int, progress: Progress) -> None:
        self._search, self._first, self._progress = search, first, progress
        self._order: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restoration that is never made

    def _save(self, trial: Any, status: Status) -> None:
        number = self._order.setdefault(trial.trial_id, self._first + len(self._order))
        lines = (trial.last_result or {}).get("history", ())
        history = tuple(Record(**line) for line in lines)
        if status == "stopped":
            if (trial.last_result or {}).get("diverged"):
                status = "diverged"
            elif history and history[-1].update == self._search.tune.total_updates:
                status = "complete"
        point = {name: trial.config[name] for name in POINT}
        self._search.save(
            replace(self._search.trial(point), status=status, history=history, order=number)
        )
        if status != "running":
            self._progress.advance(1)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stores that a trial has begun."""
        self._save(trial, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Stores how far a trial is."""
        self._save(trial, "running")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stores a trial that ended or was stopped early."""
        self._save(trial, "stopped")
