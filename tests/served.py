"""A team's server as a user starts it, `photoverse serve` in a process of its own, and calls to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import TrackingConfig
from flows.environment import PROJECT


@dataclass
class Server:
    """A running server.

    Attributes:
        process: The command.
        address: Where requests go.
        metrics: Where Prometheus looks.
        root: Folder of all runs, with the kept cards.
        token: What callers show, if they must.
    """

    process: subprocess.Popen
    address: str
    metrics: str
    root: Path
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request for pictures."""
        shown = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return {"Content-Type": "application/json"} | shown

    def post(self, body: Any) -> tuple[int, dict, dict]:
        """Returns (status, values, headers)."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        call = urllib.request.Request(f"{self.address}/v1/pictures", data, self.headers)
        try:
            with urllib.request.urlopen(call, timeout=300) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error), dict(error.headers)

    def get(self, path: str) -> tuple[int, dict]:
        try:
            with urllib.request.urlopen(self.address + path, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def served(
    tracking: TrackingConfig, root: Path, settings: dict[str, Any], token: str | None = None
) -> Iterator[Server]:
    """Serves the champion on a free port, and stops it as an operator would.

    Args:
        tracking: The registry.
        root: Folder of all runs.
        settings: Over the profile's.
        token: For `serving.auth: on`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = root / "server.log"
    given = {"tracking.uri": tracking.uri, "tracking.artifact_location": tracking.artifact_location}
    pairs = {**given, "runtime.num_cpus": 2, **settings}.items()
    words = [word for key, value in pairs for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "flows.cli", "serve", "--port", str(port), "--root", str(root), *words]
    # Ray gives its workers the lowest priority: on a busy machine they would not come up in time.
    environment = os.environ | {"RAY_worker_niceness": "0", "PYTHONPATH": str(PROJECT)}
    environment |= {} if token is None else {"PHOTOVERSE_TOKEN": token}
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield Server(process, f"http://127.0.0.1:{port}", wait_until_up(process, log), root, token)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(180)


def wait_until_up(process: subprocess.Popen, log: Path, timeout_s: float = 550) -> str:
    """Returns the address of the metrics, as the command says it when it is ready."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("Prometheus metrics at "):
                return line.removeprefix("Prometheus metrics at ")
        time.sleep(0.5)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-3000:]}")
