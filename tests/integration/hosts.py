"""Hosts for tests: network namespaces on a bridge, each with an address and a Ray node of its own."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from infra.local.cluster import HEALTH
from pipeline.cluster import SETTINGS
from pipeline.files import secret
from tests import pace

NET = f"10.213.{os.getpid() % 250}"  # of this run: two on one machine must not end each other
TAG = f"s{os.getpid() % 100_000}"
BRIDGE = f"{TAG}b"
OUTSIDE = f"{NET}.1"  # the machine that runs the tests, on the bridge


def possible() -> str | None:
    """Returns why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return None if done.returncode == 0 else "the ip command cannot list network namespaces"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """A bridge and the hosts on it; `close` ends all that runs there."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.token = secret(self.folder / "token").read_text().strip()  # of their cluster
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.close()
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")

    def add(self, number: int) -> str:
        """Makes a host; returns its address."""
        name, address = f"{TAG}-{number}", f"{NET}.{10 + number}"
        ip("netns", "add", name)
        ip("link", "add", f"{TAG}h{number}", "type", "veth", "peer", "name", f"{TAG}n{number}")
        ip("link", "set", f"{TAG}n{number}", "netns", name)
        ip("link", "set", f"{TAG}h{number}", "master", BRIDGE, "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{TAG}n{number}")
        ip("-n", name, "link", "set", f"{TAG}n{number}", "up")
        return address

    def cut(self, number: int) -> None:
        """Takes a host's link away."""
        ip("link", "set", f"{TAG}h{number}", "down")

    def mend(self, number: int) -> None:
        """Gives a host's link back."""
        ip("link", "set", f"{TAG}h{number}", "up")

    def start_node(self, number: int, head: str | None, cpus: int) -> None:
        """Starts a Ray node on a host, again and again: the head, or one that joins `head`."""
        address = f"{NET}.{10 + number}"
        role = (
            ["--head", "--port=6379", f"--dashboard-host={address}"]
            if head is None
            else [f"--address={head}:6379"]
        )
        ray = str(Path(sys.executable).parent / "ray")
        command = [
            "ip", "netns", "exec", f"{TAG}-{number}", ray, "start", *role, "--block",
            f"--node-ip-address={address}", f"--num-cpus={cpus}", "--num-gpus=0",
            "--object-store-memory=100000000", "--disable-usage-stats",
            f"--temp-dir={self.folder}/{number}",
        ]  # fmt: skip
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {
            **os.environ, **SETTINGS, **HEALTH, "PATH": path, "RAY_AUTH_TOKEN": self.token,
            "STUDY_CACHE_DIR": f"{self.folder}/{number}/cache",
        }  # fmt: skip
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
            environment.pop(name, None)
        again = f"while :; do {shlex.join(command)}; sleep 1; done"
        with (self.folder / f"{number}.log").open("ab") as log:
            self._nodes[number] = subprocess.Popen(
                ["bash", "-c", again], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def close(self) -> None:
        """Ends what runs on the hosts, and takes hosts and bridge away."""
        for node in self._nodes.values():
            node.kill()
            node.wait(pace.hangs_after_s(10))
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            name = line.split()[0]
            if not name.startswith(f"{TAG}-"):
                continue
            pids = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=True
            )
            for pid in pids.stdout.split():
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(int(pid)).kill()
            time.sleep(0.2)
            ip("netns", "del", name)
        for link in Path("/sys/class/net").glob(f"{TAG}*"):  # the bridge, and what is left on it
            subprocess.run(["ip", "link", "del", link.name], check=False, capture_output=True)
