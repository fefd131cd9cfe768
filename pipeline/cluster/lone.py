"""Trains a row with one worker on a cluster: Ray Train's local mode in an actor on some node.

A worker group of one would need a controller and five helper processes: a gigabyte and a twentieth of a
core for each training. This way a waiting training takes only a driver that imported nothing but Ray.
"""

import time
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.cluster.retry import PATIENCE_S, until_done, update_of
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage

TELL_AFTER_S = 10.0


class LoneWorker:
    """The process that trains."""

    def node(self) -> str:
        """Returns the address of the node that it runs on."""
        return str(ray.util.get_node_ip_address())

    def train(self, spec: dict[str, Any]) -> None:
        """Runs the training of a job's document until it is finished."""
        started = time.time()
        from pipeline.cluster.trainer import train_alone

        train_alone(spec, started)


def train(spec: dict[str, Any]) -> None:
    """Trains the row of a job's document; raises what `until_done` raises."""
    share, name = spec["share"], spec["name"]

    def attempt() -> None:
        worker = ray.remote(LoneWorker).options(num_cpus=share["CPU"], num_gpus=share["GPU"])
        actor = worker.remote()
        node = actor.node.remote()
        if not ray.wait([node], timeout=TELL_AFTER_S)[0]:
            print(f"{name}: waiting for {share['CPU']:g} CPU, {share['GPU']:g} GPU", flush=True)
        print(f"{name}: on node {ray.get(node)}", flush=True)
        try:
            ray.get(actor.train.remote(spec))
        finally:
            ray.kill(actor)  # frees its share at once

    storage = Storage(patience_s=PATIENCE_S)
    checkpoints = CheckpointStore(storage, spec["key"], instance=spec["instance"])
    until_done(name, lambda: update_of(checkpoints), attempt, (RayError,))
