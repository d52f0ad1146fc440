"""Two Ray nodes on one machine, each in a network namespace with an address of its own.

They share a file system, as nodes of a cluster share a volume, and nothing else: no loopback, no ports. Of a
folder that is named each has its own instead. Needs root, `ip` (iproute2) and util-linux.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.environment import PROJECT
from tests.integration.ray_head import knowing_the_token, node_environment

NETWORK = "10.77.0"
BRIDGE = "pvbr0"
CPUS = 2


def possible() -> bool:
    """Whether this machine lets us make namespaces."""
    if os.geteuid() or not (all(map(shutil.which, ("ip", "nsenter", "unshare")))):
        return False
    made = (
        subprocess.run(["ip", "netns", "add", "pv-probe"], capture_output=True, check=False).returncode == 0
    )
    subprocess.run(["ip", "netns", "del", "pv-probe"], capture_output=True, check=False)
    return made


def _ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass
class Node:
    """A namespace and the Ray node in it; `own` is a folder of which it sees an empty one of its own."""

    name: str
    address: str
    own: Path | None = None
    temp: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ray-")))
    process: "subprocess.Popen[bytes] | None" = None

    def open(self, number: int) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", f"pvn{number}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", f"pvn{number}", "master", BRIDGE, "up")
        for words in (["addr", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            _ip("-n", self.name, *words)
        _ip("-n", self.name, "link", "set", "lo", "up")

    def start(self, *words: str) -> None:
        """Starts `ray start ...` in the namespace."""
        environment = node_environment({"GLOO_SOCKET_IFNAME": "eth0"})
        # without --block: that ends a whole node when its client server, which nobody uses, is late by 30 s
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        if self.own is not None:
            script = f'mount -t tmpfs none {self.own} && exec "$@"'
            ray = ["unshare", "--mount", "sh", "-c", script, "sh", *ray]
        with (self.temp / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.name}", *ray,
                 f"--node-ip-address={self.address}", f"--num-cpus={CPUS}", "--object-store-memory=200000000",
                 *words],
                cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def pids(self) -> list[int]:
        """Returns the processes in the namespace."""
        return [int(word) for word in _ip("netns", "pids", self.name, check=False).split()]

    def commands(self) -> list[str]:
        """Returns the command lines of the processes in the namespace."""
        found = []
        for pid in self.pids():
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def kill(self) -> None:
        """Ends everything in the namespace at once, as when a machine is taken away."""
        for _ in range(50):
            left = self.pids()
            if not left:
                break
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        if self.process:
            self.process.wait(10)


@dataclass
class Cluster:
    """A head and a worker node."""

    head: Node
    worker: Node

    @property
    def url(self) -> str:
        """Address of the job server."""
        return f"http://{self.head.address}:8265"

    def start_worker(self) -> None:
        """Starts the worker node, the first or another in its place."""
        self.worker.start(f"--address={self.head.address}:6379")

    def alive(self) -> int:
        """Returns the number of nodes that the head counts as alive."""
        from ray.util.state import list_nodes

        return sum(node.state == "ALIVE" for node in list_nodes(address=self.url))

    def wait_for(self, nodes: int, timeout_s: float = 420) -> None:
        """Waits until so many nodes are alive."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with suppress(Exception):  # whatever a head that is starting says
                if self.alive() == nodes:
                    return
            time.sleep(1)
        log = (self.head.temp / "node.log").read_text()[-2000:]
        raise AssertionError(f"the cluster has not {nodes} nodes after {timeout_s} s:\n{log}")


@contextmanager
def bridge() -> Iterator[str]:
    """Lays the network of the nodes for the block; yields this machine's address in it."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield f"{NETWORK}.1"
    finally:
        _ip("link", "del", BRIDGE, check=False)


@contextmanager
def cluster(own: Path | None = None) -> Iterator[Cluster]:
    """Runs both nodes on a bridge for the block and leaves nothing of them.

    They ask for a token, as a head may do anyway; this process knows it.
    """
    with knowing_the_token():
        yield from _cluster(own)


def _cluster(own: Path | None) -> Iterator[Cluster]:
    nodes = [Node(f"pv-node{number}", f"{NETWORK}.{number + 2}", own) for number in range(2)]
    try:
        for number, node in enumerate(nodes):
            node.open(number)
        found = Cluster(*nodes)
        found.head.start(
            "--head", "--port=6379", f"--dashboard-host={found.head.address}", "--dashboard-port=8265",
            "--include-dashboard=true", f"--temp-dir={found.head.temp}",
        )  # fmt: skip
        found.wait_for(1)
        found.start_worker()
        found.wait_for(2)
        yield found
    finally:
        for node in nodes:
            node.kill()
            _ip("netns", "del", node.name, check=False)
            shutil.rmtree(node.temp, ignore_errors=True)
