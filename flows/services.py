"""`photoverse services`: Prefect's server, a worker with our deployments, and MLflow's page, all on loopback.

Everything runs until Ctrl-C or SIGTERM and is stopped in reverse order. A team's services with PostgreSQL and
a store are not here.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flows.deploy import POOL, deploy
from flows.environment import MLFLOW_PAGE, PROJECT, child_environment

HOST = "127.0.0.1"
START_S = 300.0
STOP_S = 15.0


def free_port(wanted: int = 0) -> int:
    """Returns the wanted port if it is free on loopback, else any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextmanager
def daemon(
    name: str, arguments: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs `python ...` for the block in a session of its own; SIGTERM, then SIGKILL at the end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            if number == signal.SIGTERM:
                continue  # its children may still hang on: the group gets SIGKILL as well


def wait_for(url: str, process: "subprocess.Popen[bytes]", name: str, log: Path) -> None:
    """Waits until the address answers; raises RuntimeError when the process dies or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(
                f"{name} ended at its start with exit code {process.returncode}; its log: {log}"
            )
        with suppress(urllib.error.URLError, OSError):
            with urllib.request.urlopen(url, timeout=2):
                return
        time.sleep(0.3)
    raise RuntimeError(f"{name} did not answer at {url} within {START_S:g} s; its log: {log}")


def environment_for(api_url: str, home: Path, mlflow_url: str = "") -> dict[str, str]:
    """Returns the environment of Prefect's processes: one server, quick to hear of a cancellation."""
    return child_environment(
        extra={
            MLFLOW_PAGE: mlflow_url,
            "PREFECT_API_URL": api_url,
            "PREFECT_HOME": str(home),
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "PREFECT_RUNNER_POLL_FREQUENCY": "3",
        }
    )


@contextmanager
def prefect_server(port: int, folder: Path) -> Iterator[str]:
    """Runs Prefect's server for the block; yields the address of its API."""
    api_url, log = f"http://{HOST}:{port}/api", folder / "prefect-server.log"
    environment = environment_for(api_url, folder / "prefect")
    arguments = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    with daemon("Prefect's server", arguments, environment, log) as process:
        wait_for(f"{api_url}/health", process, "Prefect's server", log)
        yield api_url


@contextmanager
def prefect_worker(api_url: str, folder: Path, mlflow_url: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a worker of our pool for the block."""
    environment = environment_for(api_url, folder / "prefect", mlflow_url)
    arguments = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    with daemon("the worker", arguments, environment, folder / "prefect-worker.log") as process:
        yield process


@contextmanager
def mlflow_server(port: int, folder: Path) -> Iterator[str]:
    """Runs MLflow's server for the block on the store of the runs below `folder`; yields its address."""
    url, log, store = f"http://{HOST}:{port}", folder / "mlflow-server.log", folder / "mlflow"
    store.mkdir(parents=True, exist_ok=True)
    arguments = [
        "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}",
        "--default-artifact-root", str(store / "artifacts"),
    ]  # fmt: skip
    with daemon("MLflow", arguments, child_environment(), log) as process:
        wait_for(f"{url}/health", process, "MLflow", log)
        yield url


def serve(prefect_port: int, mlflow_port: int, root: str = "runs") -> int:
    """Starts all services, prints their addresses, and waits for Ctrl-C or SIGTERM.

    Returns:
        0 when they were stopped, 1 when one of them died.
    """
    folder = PROJECT / root
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        print("starting Prefect and MLflow (a quarter of a minute) ...", flush=True)
        api_url = stack.enter_context(prefect_server(free_port(prefect_port), folder))
        deploy(environment=environment_for(api_url, folder / "prefect"))
        mlflow_url = stack.enter_context(mlflow_server(free_port(mlflow_port), folder))
        worker = stack.enter_context(prefect_worker(api_url, folder, mlflow_url))
        note = folder / "services.json"
        note.write_text(
            json.dumps({"pid": os.getpid(), "prefect_api": api_url, "mlflow": mlflow_url}), encoding="utf-8"
        )
        stack.callback(note.unlink, missing_ok=True)
        print(_welcome(api_url, mlflow_url, folder), flush=True)
        while not stop.wait(1.0):
            if worker.poll() is not None:
                print(
                    f"error: the worker ended by itself; its log: {folder / 'prefect-worker.log'}",
                    file=sys.stderr,
                )
                return 1
        print("stopping ...", flush=True)
    print("stopped.")
    return 0


def _welcome(api_url: str, mlflow_url: str, folder: Path) -> str:
    return (
        f"Prefect   {api_url.removesuffix('/api')}\n"
        f"MLflow    {mlflow_url}\n"
        f"logs      {folder}/*.log\n"
        "try       PREFECT_API_URL="
        + api_url
        + " .venv/bin/prefect deployment run photoverse/train --watch\n"
        "Ctrl-C stops everything."
    )
