"""Checkpoints of trainings on S3, each with a manifest; the last two are kept.

Every training process makes an attempt of its own, numbered at its first commit. Only the last attempt
may commit, and of two manifests the one of the later attempt counts: a worker that was cut off but is
still running cannot mix its files with its successor's.
"""

import json
import os
import socket
import sys
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, Self

from pipeline.checkpoint import Checkpoint, CheckpointFacts
from pipeline.errors import BusyError, StorageError
from pipeline.storage.layout import TRAININGS, Instance, Instances, sealed, sha256
from pipeline.storage.objects import Storage

KEPT = 2
TENSORS = "tensors"


class Training(Protocol):
    """Something that has checkpoints: a `pipeline.training.training.Training`."""

    @property
    def key(self) -> str:
        """The run key."""

    @property
    def instance(self) -> int:
        """The number of the key's instance."""

    @property
    def kind(self) -> str:
        """A kind from `pipeline.storage.layout`."""


class CheckpointStore:
    """The checkpoints of one instance of a training, by default the current one.

    Each saved checkpoint records `commit`.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        *,
        commit: str = "unknown",
        instance: int | None = None,
        kind: str = TRAININGS,
    ) -> None:
        self._storage, self._key, self._kind = storage, key, kind
        self._commit, self._number, self._attempt = commit, instance, 0
        self._named: dict[str, str | None] = {}  # objects by manifest, once an attempt is claimed
        self._who = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}

    @classmethod
    def of(cls, training: Training, storage: Storage, commit: str = "unknown") -> Self:
        """Returns the checkpoints of a training's instance, or of a trial's."""
        return cls(
            storage, training.key, commit=commit, instance=training.instance, kind=training.kind
        )

    @cached_property
    def instance(self) -> Instance:
        """The instance whose checkpoints these are; it stays the same when another one begins."""
        number = self._number or Instances(self._storage, self._kind, self._key).current()
        return Instance(self._storage, self._kind, self._key, number)

    def facts(self) -> CheckpointFacts | None:
        """Returns the facts of the last committed checkpoint (including its history), or None."""
        for name in reversed(self.instance.names()):
            with suppress(StorageError):
                if (found := self.instance.manifest(name)) is not None:
                    return CheckpointFacts.parse(found[0])
        return self._before.facts() if self._before else None

    def latest(self) -> Checkpoint | None:
        """Returns the last committed checkpoint that is intact, or None if there are none.

        A damaged one is skipped with a warning. Raises StorageError if all are damaged.
        """
        damaged = None
        for name in reversed(self.instance.names()):
            try:
                if (found := self.instance.manifest(name)) is None:
                    continue  # deleted in the meantime: there is a later one
                facts, objects = found
                return Checkpoint(
                    self.instance.object(objects[TENSORS]), CheckpointFacts.parse(facts)
                )
            except (StorageError, KeyError) as error:
                damaged = damaged or error
                print(f"warning: {error}: going on from the previous checkpoint", file=sys.stderr,
                      flush=True)  # fmt: skip
        if damaged is not None:
            raise StorageError(
                f"{damaged}: no earlier checkpoint is intact: `make again RUN=<row>` trains afresh"
            )
        return self._before.latest() if self._before else None

    def finished(self) -> Checkpoint | None:
        """Returns the checkpoint of the last update if it is committed and intact, or None.

        The decision is about the checkpoint that is returned: if the last one is damaged, the training
        is not finished, whatever its manifest says.
        """
        facts = self.facts()
        if facts is None or not facts.is_finished:
            return None
        found = self.latest()
        return found if found is not None and found.facts.is_finished else None

    def save(self, checkpoint: Checkpoint) -> None:
        """Commits a checkpoint and deletes those before the last two.

        Raises BusyError if a later attempt has begun: that one trains now, and no longer this process.
        """
        self._attempt = self._attempt or self._claim()
        digest = self.instance.put_object(checkpoint.tensors)
        self._require_last()
        facts = replace(checkpoint.facts, commit=self._commit, attempt=self._attempt)
        name = f"{self._attempt:06d}-{facts.update:08d}"
        self.instance.put_manifest(name, facts.document(), {TENSORS: digest})
        self._named[name] = digest
        if facts.is_finished:  # no later attempt tidies up what an earlier one wrote late
            late = set(self.instance.names()) - self._named.keys()
            self._named |= {other: self._object_of(other) for other in late}
        self._drop_all_but_the_last()

    def clear(self) -> None:
        """Deletes all instances of the training."""
        Instances(self._storage, self._kind, self._key).forget()
        if self._before:
            self._before.clear()
        self._attempt = 0
        self.__dict__.pop("instance", None)

    # --- attempts -------------------------------------------------------------------------------

    def _attempts(self) -> int:
        prefix = f"{self.instance.prefix}attempts/"
        names = [key[len(prefix) :].removesuffix(".json") for key in self._storage.keys(prefix)]
        return max((int(name) for name in names), default=0)

    def _claim(self) -> int:
        """Claims the next attempt's number, and deletes what killed attempts left without a manifest."""
        while True:
            number = self._attempts() + 1
            if self._storage.put_new(self._attempt_key(number), self._claim_of(number)):
                break
        self._named = {name: self._object_of(name) for name in self.instance.names()}
        named = set(self._named.values())
        prefix = f"{self.instance.prefix}objects/"
        left = [key for key in self._storage.keys(prefix) if key[len(prefix) :] not in named]
        self._storage.delete(*left)
        return number

    def _attempt_key(self, number: int) -> str:
        return f"{self.instance.prefix}attempts/{number:06d}.json"

    def _claim_of(self, number: int) -> bytes:
        return sealed(self._who, f"{self.instance.place}attempts/{number:06d}.json")

    def _require_last(self) -> None:
        last = self._attempts()
        # without conditional puts, two may claim one number at the same moment: the later one wins
        mine = self._claim_of(self._attempt)
        if last > self._attempt or self._storage.get(self._attempt_key(last)) != mine:
            raise BusyError(
                f"{self._key}: attempt {last} at this training has begun elsewhere, and this process "
                f"is attempt {self._attempt}: it stops, and stores nothing more"
            )

    def _drop_all_but_the_last(self) -> None:
        """Deletes old checkpoints; objects first, so that none is left without a manifest."""
        for name in sorted(self._named)[:-KEPT]:
            digest = self._named.pop(name)
            if digest and digest not in self._named.values():
                self._storage.delete(self.instance.object_key(digest))
            self._storage.delete(self.instance.manifest_key(name))

    def _object_of(self, name: str) -> str | None:
        """Returns the object that a manifest names; None if the manifest is damaged or gone."""
        with suppress(StorageError):
            if (manifest := self.instance.manifest(name)) is not None:
                return manifest[1].get(TENSORS)
        return None

    @cached_property
    def _before(self) -> "Before | None":
        """The checkpoints from before there were instances; the first instance continues from them."""
        first = self._kind == TRAININGS and self.instance.number == 1
        return Before(self._storage, self._key) if first else None


class Before:
    """Checkpoints committed before 2026-11-25: `trainings/<key>/<update>.json` beside `.safetensors`."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._prefix = storage, f"trainings/{key}/"

    def _committed(self) -> list[str]:
        return [key for key in self._storage.keys(self._prefix) if key.endswith(".json")]

    def _document(self, key: str) -> dict[str, Any] | None:
        content = self._storage.get(key)
        with suppress(ValueError):
            return json.loads(content) if content is not None else None
        return None

    def facts(self) -> CheckpointFacts | None:
        """Returns the facts of the last one, or None."""
        found = (self._document(key) for key in reversed(self._committed()))
        return next((CheckpointFacts.parse(said) for said in found if said is not None), None)

    def latest(self) -> Checkpoint | None:
        """Returns the last one that is intact, or None."""
        for key in reversed(self._committed()):
            if (said := self._document(key)) is not None:
                tensors = self._storage.get(key.removesuffix(".json") + ".safetensors")
                if tensors is not None and sha256(tensors) == said["sha256"]:
                    return Checkpoint(tensors, CheckpointFacts.parse(said))
        return None

    def clear(self) -> None:
        """Deletes them."""
        names = self._storage.keys(self._prefix)
        self._storage.delete(*sorted(names, key=lambda name: not name.endswith(".json")))
