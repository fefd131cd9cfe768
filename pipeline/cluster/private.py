"""What we use of Ray outside its public interface: each name once, and why.

One more is in infra/local/node.py, which must not import this package: its settings are not for a node.

So pyproject.toml pins Ray's version; tests/cluster/test_private.py shows what another would break.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray
import requests
from ray.job_submission import JobSubmissionClient

if TYPE_CHECKING:
    from ray.train.torch import TorchConfig

REQUEST_TIMEOUT_S, REQUEST_TRIES = 20.0, 3


def on_loopback(folder: Path) -> dict[str, Any]:
    """Returns the options that make `ray.init` listen on loopback and keep its files in a folder.

    There are no public ones; without these Ray listens on all interfaces, writes to /tmp/ray, and starts a
    worker process for each core before anyone asks for one (0.9 s of processor time each).
    """
    return {
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": str(folder),
        "_system_config": {"prestart_worker_first_driver": False},
    }


class Client(JobSubmissionClient):
    """Ray's Jobs API client, whose requests time out; Ray's own waits forever for a hanging server.

    A busy head may take longer for one of them, so each is tried again; a job that was taken the first time
    exists already at the second.
    """

    def _do_request(self, *arguments: Any, **options: Any) -> requests.Response:
        options = {"timeout": REQUEST_TIMEOUT_S, **options}
        for _ in range(REQUEST_TRIES - 1):
            with suppress(requests.Timeout):
                return super()._do_request(*arguments, **options)
        return super()._do_request(*arguments, **options)

    def session_name(self) -> str:
        """Returns the session name of the running cluster; each start of a cluster has a new one."""
        name: str = self._do_request("GET", "/api/version").json()["session_name"]
        return name


def shapes_to_come() -> list[dict[str, float]]:
    """Returns the resources of each kind of node that the autoscaler of the joined cluster may add.

    Ray Data and Ray Train ask the same way.
    """
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else []
    return [dict(group.resources) for group in groups if group.max_count != 0]


def own_interface() -> "TorchConfig":
    """Returns a configuration with which workers meet and talk over the interface of their node's own address.

    By default the first one listens for the others on all interfaces, where anybody who can reach the host
    may write among what they tell each other, and Gloo takes the interface that the host's name resolves
    to, which on many hosts is another. Ray's backend is the only place to connect them differently.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
            on_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
            address = worker_group.execute_single(0, _listen)
            worker_group.execute(
                _meet,
                "nccl" if on_gpus else "gloo",
                address,
                timedelta(seconds=backend_config.timeout_s),
            )

    class OwnInterface(TorchConfig):
        @property
        def backend_cls(self) -> Callable[[], _TorchBackend]:
            return Backend

    return OwnInterface()


_listener: socket.socket | None = None  # of the first worker


def _listen() -> tuple[str, int]:
    """Opens the socket at which the workers of a training meet, on this node's own address."""
    global _listener
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    _listener = socket.create_server((host, 0), family=family)
    return host, _listener.getsockname()[1]


def _meet(backend: str, address: tuple[str, int], timeout: timedelta) -> None:
    """Connects this worker with the others of its training."""
    import ray.train
    from torch import distributed

    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if own in [one.address for one in addresses]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        *address, workers, is_master=rank == 0, timeout=timeout,
        master_listen_fd=_listener.detach() if rank == 0 and _listener else None,
    )  # fmt: skip
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=workers, timeout=timeout
    )
