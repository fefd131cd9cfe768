"""Ray: embedded in the stage that needs it, or joined by a driver on a cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.util.state import list_actors

from pipeline.cluster.private import on_loopback
from pipeline.files import scratch, secret
from pipeline.machine import cores

TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
WORKERS = ("RayTrainWorker", "ImplicitFunc")  # Ray Train's, and Ray Tune's for a trial's function


@contextmanager
def embedded() -> Iterator[None]:
    """Runs Ray on this machine, on loopback, for as long as the context lasts."""
    own_token()
    with scratch("e", short=True) as folder:
        try:
            ray.init(
                address="local",
                num_cpus=cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                **on_loopback(folder),
            )
            yield
        finally:
            ray.shutdown()


def own_token() -> None:
    """Creates the embedded Ray's token if it is missing, in a file that only this user can read."""
    if path := os.environ.get(TOKEN_PATH):
        secret(Path(path))


@contextmanager
def joined() -> Iterator[None]:
    """Joins the cluster on whose head this driver runs; this process prints what the workers print."""
    ray.init(address="auto", log_to_driver=True, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def cluster_id() -> str:
    """Returns the session name of the running cluster; each start of a cluster has a new one."""
    name: str = ray.get_runtime_context().get_session_name()
    return name


def has_workers() -> bool:
    """Tells whether this driver's run has a live worker."""
    job = ray.get_runtime_context().get_job_id()
    mine = list_actors(
        filters=[("job_id", "=", job), ("state", "=", "ALIVE")],
        raise_on_missing_output=False,  # Ray counts what a filter leaves out as missing
    )
    return any(actor.class_name in WORKERS for actor in mine)
