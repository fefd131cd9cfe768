"""Publishes a study to MLflow: a copy that can be deleted and made again from the files.

Everything is idempotent: a run is found again by its key and instance, and a line of a history is sent only
if its update is not there yet, with a timestamp that is the same in every attempt. So it does not matter how
often, by which process or after what failure a history is published: each line is there once.

A key's instances are numbered on S3: after `make forget`, or with another S3, another training may have the
same number. It is told from the one before by when its first line was reported, and has a run of its own.

Processes of one host make a run one after another, under a lock, and hosts that share a bucket by a conditional put
there (`pipeline.tracking.turn`). Elsewhere two hosts could make the same run at the same moment: who finds an older
one beside its own deletes its own. If their clocks differ, both may stay: whoever publishes next goes on with the
older one, and marks the other as superseded.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Record
from pipeline.git import commit
from pipeline.storage.objects import Storage
from pipeline.tracking import registry
from pipeline.tracking.address import PROXIED, SQLITE, experiment, tracking_uri
from pipeline.tracking.run import (
    SENDER,
    SENT,
    Child,
    Upload,
    all_pages,
    alone,
    is_gone,
    make_tables,
    named,
    set_tags,
)
from pipeline.tracking.turn import turn

IDENTITY = ("kind", "run_key", "instance")  # tags
SUPERSEDED = "superseded_by"
# of the data; trainings, searches and trials use those of training
SPLITS = {"study": ("train", "val", "test"), "ensemble": ("val", "test")}
USER = "mlflow.user"  # a tag, which MLflow shows
PAGE = 1000  # runs in one answer of MLflow
Parts = Mapping[str, str]


@dataclass(frozen=True)
class Address:
    """What a study's own run is found by."""

    study: str
    params_digest: str
    data_digest: str


class Tracker:
    """One study's parent run and its children; every method may raise TrackingError.

    With `turns`, hosts that share its bucket make a run one after another.
    """

    def __init__(self, address: Address, upload: Upload, turns: Storage | None = None) -> None:
        study = address.study
        self._uri, self._upload, name = tracking_uri(), upload, experiment()
        self._turns = turns
        self._is_here = self._uri.startswith(SQLITE)
        self._study, self._tags = study, {"data_digest": address.data_digest}
        with named(self._uri):
            from mlflow import MlflowClient

            for noisy in ("mlflow", "alembic", "urllib3"):  # they log migrations and each retry
                logging.getLogger(noisy).setLevel(logging.ERROR)
            make_tables(self._uri)
            with alone(self._uri, name):
                self._client = MlflowClient(self._uri)
                found = self._client.get_experiment_by_name(name)
                if found and self._is_here and found.artifact_location.startswith("s3://"):
                    # of an earlier version: only who has the keys of S3 could fetch its artifacts
                    aside = f"{name} before {time.strftime('%Y-%m-%d %H:%M:%S')}"
                    if found.lifecycle_stage == "deleted":
                        self._client.restore_experiment(found.experiment_id)
                    self._client.rename_experiment(found.experiment_id, aside)
                    found = None
                if found is None:
                    place = PROXIED if self._is_here else None  # a server has its own
                    self._experiment = self._client.create_experiment(name, place)
                else:
                    self._experiment = found.experiment_id
                    if found.lifecycle_stage == "deleted":
                        self._client.restore_experiment(self._experiment)
            identity = {"kind": "study", "params_digest": address.params_digest}
            self.parent = self._run(study, identity, {**self._tags, "study": study})

    def child(
        self, kind: str, name: str, key: str, tags: Parts | None = None, instance: int = 1,
        history: Sequence[Record] | None = None,
    ) -> "Child":  # fmt: skip
        """Returns the child run of `kind` with this key and instance, created if it does not exist.

        `history` is that of a training: a run that began with another line is another training's. A further
        training is linked to the one before. A row that two studies share (its key is the same) belongs to the
        last one that published it.
        """
        with named(self._uri):
            more = {"mlflow.parentRunId": self.parent, **self._tags, **(tags or {})}
            identity = {"kind": kind, "run_key": key}
            if instance > 1:
                before = self._find({**identity, **_numbered(instance - 1)})
                more |= {"instance_before": before[0].info.run_id} if before else {}
            run = self._run(name, {**identity, **_numbered(instance)}, more, history)
        return self._child(run)

    def training(self, said: Mapping[str, Any], history: Sequence[Record]) -> "Child":
        """Returns the run of a training with a history, as `pipeline.tracking.results.said_of` describes it."""
        run = self.child(
            "training", said["name"], said["key"], said["tags"], said["instance"], history
        )
        run.params(said["params"])
        return run

    def complete(self) -> set[tuple[str, str, str, str]]:
        """Returns the kind, key and instance of each of the study's runs, and what was sent of it (`Child.completed`)."""
        query = f"tags.`mlflow.parentRunId` = '{self.parent}'"
        with named(self._uri):
            found = all_pages(self._client.search_runs, [self._experiment], query, max_results=PAGE)
            tags = [run.data.tags for run in found]
        kind, key, number = IDENTITY
        return {
            (one.get(kind, ""), one.get(key, ""), one.get(number, ""), one.get(SENT, ""))
            for one in tags
        }

    def supersede(self) -> None:
        """Marks the study's runs of other parameters as superseded by this one; in a team, this member's."""
        of_study = f"tags.kind = 'study' and tags.study = '{self._study}'"
        with named(self._uri):
            for run in self._client.search_runs([self._experiment], of_study):
                present, known = run.info.run_id == self.parent, run.data.tags.get(SUPERSEDED)
                if present and known:
                    self._client.delete_tag(self.parent, SUPERSEDED)
                elif (
                    not present and known != self.parent and run.data.tags.get(USER, "") == member()
                ):
                    self._client.set_tag(run.info.run_id, SUPERSEDED, self.parent)

    def settle(self) -> None:
        """Marks the trainings and studies as killed that still run by their record, and whose sender died on this host."""
        living = "attributes.status = 'RUNNING'"
        with named(self._uri):
            from mlflow.exceptions import MlflowException

            search = self._client.search_runs
            for run in all_pages(search, [self._experiment], living, max_results=PAGE):
                if is_gone(run.data.tags.get(SENDER, "")):
                    with suppress(MlflowException):  # another member's, who may not be spoken for
                        self._client.set_terminated(run.info.run_id, "KILLED")

    def study(self) -> "Child":
        """Returns the parent run itself."""
        return self._child(self.parent)

    def model(
        self, child: Child, name: str, network: str, tags: Mapping[str, str],
        save: Callable[[Path], None],
    ) -> None:  # fmt: skip
        """Logs a run's model, which `save` writes to a folder, and registers it as `<study>-<network>`.

        `tags` says what it was made from and its error on val.
        """
        registered, run = f"{self._study}-{network}", child.run_id
        tags = {**tags, **self._tags}
        with named(self._uri), alone(self._uri, registered):
            upload = self._upload if self._is_here else None
            uri = registry.put(self._client, self._experiment, run, name, tags, save, upload)
            version = registry.register(self._client, registered, uri, run, tags)
        child.tags({"model": f"models:/{registered}/{version}"})

    def _child(self, run: str) -> "Child":
        return Child(self._client, self._uri, run, self._upload)

    def _find(self, wanted: Parts) -> list[Any]:
        """Returns the runs that have these tags, the oldest first."""
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        found = self._client.search_runs([self._experiment], query)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _fitting(self, found: list[Any], history: Sequence[Record] | None) -> list[Any]:
        """Returns the runs that began as `history` did, else those that have no line yet; all if it is None."""
        if history is None:
            return found
        began = [self._began(run) for run in found]
        same = [
            run for run, first in zip(found, began, strict=True)
            if first and history and first[0] == history[0].update
            and math.isclose(first[1], history[0].seconds, rel_tol=1e-9)
        ]  # fmt: skip
        return same or [run for run, first in zip(found, began, strict=True) if first is None]

    def _began(self, run: Any) -> tuple[int, float] | None:
        """Returns the update and the seconds of a run's first line; None if it has none."""
        if "seconds" not in run.data.metrics:
            return None
        lines = self._client.get_metric_history(run.info.run_id, "seconds")
        return min((line.step, line.value) for line in lines)

    def _run(
        self, name: str, identity: Parts, tags: Parts, history: Sequence[Record] | None = None
    ) -> str:
        with alone(self._uri, self._experiment):
            fitting = self._fitting(self._find(identity), history)
            if not fitting:
                what = self._making(identity, history)
                with turn(self._turns, what) if self._turns else nullcontext():
                    found = self._find(identity)  # another host may have made it since
                    fitting = self._fitting(found, history)
                    fitting = fitting or [self._create(name, identity, history, found)]
            run = fitting[0]
            for twin in fitting[1:]:  # of another host, at the very same moment
                self._end_twin(twin, run.info.run_id)
        wanted = {**tags, "mlflow.runName": name}
        set_tags(self._client, run, wanted)
        identifier: str = run.info.run_id
        return identifier

    def _making(self, identity: Parts, history: Sequence[Record] | None) -> str:
        """Returns what hosts make in turn: a run of an identity that began like this."""
        began = history[0].seconds if history else ""
        return f"{self._uri} {self._experiment} {sorted(identity.items())} {began}"

    def _create(
        self, name: str, identity: Parts, history: Sequence[Record] | None, others: list[Any]
    ) -> Any:
        """Makes a run beside `others` of this identity, which do not fit."""
        from mlflow.exceptions import MlflowException

        first = {**identity, "commit": commit(), "mlflow.source.name": "dvc repro"}
        first |= {USER: member()} if member() else {}
        if others:
            first |= {"instance_before": others[-1].info.run_id}
        mine = self._client.create_run(self._experiment, run_name=name, tags=first)
        splits = SPLITS.get(identity["kind"], ("train", "val"))
        self._child(mine.info.run_id).uses(self._tags["data_digest"], splits)
        oldest = next(iter(self._fitting(self._find(identity), history)), mine)
        if oldest.info.run_id != mine.info.run_id:
            set_tags(self._client, mine, {SUPERSEDED: oldest.info.run_id})
            with suppress(MlflowException):  # a team's member may not delete
                self._client.delete_run(mine.info.run_id)
        return oldest

    def _end_twin(self, twin: Any, run: str) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # another member's
            set_tags(self._client, twin, {SUPERSEDED: run})
            if twin.info.status == "RUNNING":
                self._client.set_terminated(twin.info.run_id, "KILLED")


def member() -> str:
    """Returns a team's member, as whom this process speaks with MLflow's server; empty if it asks for none."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME", "")


def _numbered(instance: int) -> dict[str, str]:
    return {"instance": str(instance)}
