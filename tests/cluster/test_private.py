"""What we use of Ray and torch beyond their public interfaces is there, and does what we take it to do.

A new version of Ray may change any of it: what fails here says what to look at in pipeline/cluster/private.py.
"""

import inspect
import json
import re
import socket
import subprocess
import sys
from contextlib import closing

import pytest
import requests
import torch
from ray._private import services
from ray.job_submission import JobSubmissionClient
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.execution.worker_group.execution_group import ExecutionGroup

from pipeline.cluster import private
from tests.conftest import REPO


def test_no_private_name_of_rays_stands_anywhere_else():
    names = re.compile(
        r"ray\._private|\b(_do_request|_TorchBackend|_temp_dir)\b|\b_node_ip_address="
    )
    for folder in ("pipeline", "stages", "infra"):
        for path in (REPO / folder).rglob("*.py"):
            if path.name not in ("private.py", "node.py"):
                assert not names.search(path.read_text()), path


LISTENING = """
import json, psutil
from pipeline.cluster import private, session
import ray
with session.embedded():
    found = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    print(json.dumps([sorted(found), ray.util.get_node_ip_address(), private.shapes_to_come()]))
"""


@pytest.mark.integration
def test_an_embedded_ray_listens_on_loopback_alone():
    """In a process of its own: Ray reads its settings when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], cwd=REPO, capture_output=True, text=True, check=True
    )
    listening, address, to_come = json.loads(done.stdout.splitlines()[-1])
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert address == "127.0.0.1"
    assert to_come == []  # there is no autoscaler


def test_rays_clients_requests_go_through_the_method_that_bounds_them(
    monkeypatch: pytest.MonkeyPatch,
):
    """A server that takes the connection and never answers."""
    assert "_do_request" in inspect.getsource(JobSubmissionClient.list_jobs)
    monkeypatch.setattr(private, "REQUEST_TIMEOUT_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        client = object.__new__(private.Client)
        client._address = f"http://127.0.0.1:{server.getsockname()[1]}"
        client._cookies = client._headers = client._verify = None
        client._ssl_context = None
        with pytest.raises((requests.Timeout, ConnectionError)):
            client.session_name()  # Ray's own waits for ever


def test_rays_torch_backend_starts_by_the_method_that_we_extend():
    config = private.own_interface()
    backend = config.backend_cls
    assert issubclass(backend, _TorchBackend)
    assert list(inspect.signature(_TorchBackend.on_start).parameters) == [
        "self", "worker_group", "backend_config",
    ]  # fmt: skip
    for name in ("execute", "execute_single"):
        assert callable(getattr(ExecutionGroup, name))
    assert callable(services.resolve_ip_for_localhost)


def test_torch_says_whether_convolutions_have_bfloat16():
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() in (True, False)
