"""The environment of every process that we start: nothing calls home, threads fit the cores.

Set here and nowhere else. A variable that the user has set wins.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
"""The folder that holds flows/, components/ and infra/; relative paths in settings count from it."""

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # insightface imports it, and it asks a registry for its newest version
}
"""No usage statistics, no version checks."""

HABITS = {
    # a server that a flow starts for itself needs 9-17 s on a busy laptop; Prefect gives up after 20 s
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes instead of 10
    "TOKENIZERS_PARALLELISM": "false",  # warns in every forked worker otherwise
    "PYTHONUNBUFFERED": "1",  # log lines must reach the flow as they are written
    "RAY_TRAIN_V2_ENABLED": "1",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; the automation for dead runs counts on it
}

HUB_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
MLFLOW_PAGE = "PHOTOVERSE_MLFLOW_PAGE"  # where `make services` shows MLflow, for links
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def prepare_environment() -> None:
    """Sets what this process and its children need, where the user has not."""
    for name, value in (QUIET | HABITS).items():
        os.environ.setdefault(name, value)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(PROJECT / "runs" / "prefect")))
    with suppress(OSError):  # Prefect makes the last folder alone; it says itself what it cannot write
        home.mkdir(parents=True, exist_ok=True)


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1


def child_environment(
    *, threads: int = 1, local_base: bool = True, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the environment of a stage process.

    Args:
        threads: Threads that each numeric library may start, unless the user has said otherwise.
        local_base: The base model is a folder, so no hub is ever to be asked.
        extra: Variables to set over all others.
    """
    defaults = QUIET | HABITS | dict.fromkeys(THREADS, str(threads))
    if local_base:
        defaults |= HUB_OFFLINE
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    return defaults | os.environ | {"PYTHONPATH": python_path} | dict(extra or {})


def job_environment(*, threads: int = 1, local_base: bool = True) -> dict[str, str]:
    """Returns what a job on a cluster is given on top of the cluster's own environment."""
    values = QUIET | HABITS | dict.fromkeys(THREADS, str(threads))
    return values | HUB_OFFLINE if local_base else values
