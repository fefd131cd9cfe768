"""Ray Tune trains the trials of a search, one rung at a time (`pipeline.tuning.halving`).

Ray Tune's own state is never read back (docs/adr/0001).
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune as ray_tune
from ray.train import ScalingConfig
from ray.tune import FailureConfig
from ray.tune.search import Searcher

from pipeline import machine
from pipeline.cluster import session
from pipeline.cluster.retry import MAX_FAILURES, PATIENCE_S, patience_s
from pipeline.errors import DivergedError, TrainingError
from pipeline.files import scratch
from pipeline.params import Row, Tune, validate
from pipeline.storage.objects import Storage
from pipeline.tuning import halving
from pipeline.tuning.search import Search

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def search_all(search: Search, at_once: int, share: dict[str, float], arrays: Path | None) -> None:
    """Runs the search until it is finished: `at_once` trials side by side, each worker with its `share`.

    `arrays` is the data set's file, or None if each node fetches it by its digest. Ray must have been
    started or joined. Raises TrainingError, with nothing decided, if a trial fails or time runs out.
    """
    search.note(done=False)
    group = search.trained.worker_bounds[0] > 1
    bundle = {"memory": 1.0} if group else share  # a group's workers have shares of their own
    began = time.monotonic()
    with scratch("tune") as folder, _keys_kept_here():
        results = ray_tune.Tuner(
            ray_tune.with_resources(
                _trainable(search, share, arrays), ray_tune.PlacementGroupFactory([bundle])
            ),
            tune_config=ray_tune.TuneConfig(
                search_alg=Rungs(search),
                num_samples=-1,
                max_concurrent_trials=at_once,
                time_budget_s=search.tune.time_limit_s,
                reuse_actors=not group,
            ),
            run_config=ray_tune.RunConfig(
                name=f"{search.key}-{time.time_ns()}",
                storage_path=str(folder),
                verbose=0,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        ).fit()
    if results.errors:
        raise TrainingError(
            f"{len(results.errors)} of the search's trials failed; the first: "
            f"{str(results.errors[0]).strip().splitlines()[-1]}: `dvc repro` resumes them"
        )
    if (rung := halving.behind(search.trials(), search.tune)) is not None:
        updates, late = rung
        if time.monotonic() - began < search.tune.time_limit_s:
            raise TrainingError(
                f"{len(late)} trials have ended, but S3 lacks their checkpoints of update {updates:,}: "
                "nothing is decided; `dvc repro` trains them further"
            )
        raise TrainingError(
            f"the search's time limit of {search.tune.time_limit_s:g} s is over, and {len(late)} "
            f"trials have not reached update {updates:,}: nothing is decided; "
            "`dvc repro` goes on from there, with as much time again (time_limit_s in params.yaml, "
            "which changes no result)"
        )
    search.note(done=True)


class Rungs(Searcher):
    """Tells Ray Tune what comes next: a trial to train up to the first rung that not all have reached.

    A rung begins once the one before has been reached by all of its trials. What Ray Tune calls a trial
    is one trial's training up to one rung; its process then takes the next.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search
        self._waiting: list[int] = []
        self._under_way: set[str] = set()
        self._updates, self._failed = 0, False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns a trial's number and how far to train it, None while others run, or FINISHED."""
        if not self._waiting:
            if self._under_way:
                return None
            rung = halving.behind(self._search.trials(), self._search.tune)
            if self._failed or rung is None or rung[0] <= self._updates:
                return Searcher.FINISHED
            self._updates, late = rung
            self._waiting = [trial.number for trial in late]
            print(
                f"search {self._search.key[:8]}: {len(late)} trials to update {self._updates:,}",
                flush=True,
            )
        self._under_way.add(trial_id)
        return {"number": self._waiting.pop(0), "updates": self._updates}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Notes that a trial has reached its rung, or failed for good."""
        self._under_way.discard(trial_id)
        self._failed |= error

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: all that is known of a search is on S3."""


def _train(
    search: Search, number: int, updates: int, share: dict[str, float], arrays: Path | None
) -> None:
    """Trains one trial up to an update, in a process of Ray Tune's."""
    from pipeline.cluster import trainer  # imports torch, which the search itself has no need of
    from pipeline.models.predict import device

    config = {
        "training": search.training(number, updates), "model": search.tune.model,
        "arrays": arrays, "commit": "",
        "patience_s": patience_s(), "decoders": max(1, int(share["CPU"])),
        "started": time.time(),
    }  # fmt: skip
    try:
        if (workers := search.trained.worker_bounds[0]) > 1:
            gpus = share.get("GPU", 0.0)
            trainer.fit_group(
                config,
                ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=share),
            )
        else:
            trainer.in_this_process(
                config, device(), lambda history: ray_tune.report({"update": history[-1].update})
            )
    except DivergedError as error:
        search.note_divergence(number, str(error))


def _trainable(
    search: Search, share: dict[str, float], arrays: Path | None
) -> Callable[[dict[str, Any]], None]:
    def trial(config: dict[str, Any]) -> None:
        _train(search, config["number"], config["updates"], share, arrays)
        # a trial that was already there has reported nothing
        ray_tune.report({"update": config["updates"]})

    return trial


def search_here(search: Search, arrays: Path, trials_at_once: int) -> None:
    """Runs the search on this machine's cores, and on its GPUs if it has any."""
    if search.row.precision != "float32":
        from pipeline.training.hardware import require  # imports torch

        require(search.row.precision, f"models.{search.tune.model}.precision")
    cores, workers = machine.cores(), search.row.worker_bounds[0]
    cpus = min(search.row.threads, cores / workers)
    at_once = max(1, min(trials_at_once, int(cores // (cpus * workers))))
    with session.embedded():  # trials run in folders of their own
        # several small networks on one GPU; Ray shares none of several
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0.0) / (at_once * workers))
        search_all(search, at_once, {"CPU": cpus, "GPU": gpus}, arrays.resolve())


def search_there(spec: dict[str, Any]) -> None:
    """Runs the search of a job's document on the cluster that this driver has joined."""
    search = Search(
        validate(Tune, spec["tune"], "job"),
        validate(Row, spec["row"], "job"),
        spec["data"],
        Storage(patience_s=PATIENCE_S),
        spec["instance"],
    )
    search_all(search, spec["at_once"], spec["share"], None)


@contextmanager
def _keys_kept_here() -> Iterator[None]:
    """Hides the S3 keys from Ray Tune, which would pass them on to its trials in a way that Ray logs.

    Trials get the keys from their node; this process's own client was created before.
    """
    hidden = {name: os.environ.pop(name) for name in KEYS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
