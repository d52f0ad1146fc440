"""A Ray head with its job server on loopback, as a team's: it asks for a token."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.environment import child_environment
from flows.services import HOST, daemon, free_port

TOKEN = "the-token-of-the-test"


@contextmanager
def ray_head(cpus: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs a head for the block and yields its address; this process and its children know the token.

    Args:
        cpus: CPUs that it offers.
        environment: Variables of the head, and so of all jobs.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets have room for 107 characters
    dashboard = free_port()
    options = {
        "node-ip-address": HOST,
        "port": free_port(),
        "num-cpus": cpus,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "ray-client-server-port": free_port(),
        "dashboard-host": HOST,
        "dashboard-port": dashboard,
        "include-dashboard": "true",
        "dashboard-agent-listen-port": free_port(),
        "temp-dir": folder,
    }
    words = ["-m", "ray.scripts.scripts", "start", "--head", "--block"]
    words += [f"--{name}={value}" for name, value in options.items()]
    with knowing_the_token():
        with daemon("Ray", words, node_environment(environment), folder / "head.log"):
            wait_for_jobs(f"http://{HOST}:{dashboard}")
            yield f"http://{HOST}:{dashboard}"


def node_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment of a Ray node: jobs call `python`, which must be this one, as in an image."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return child_environment(extra={"PATH": path} | dict(more or {}))


@contextmanager
def knowing_the_token() -> Iterator[None]:
    """Sets the token for the block; Ray reads the variables once, so it is told to read them again."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        reset_auth_token_state()
        yield
        assert os.environ["RAY_AUTH_TOKEN"] == TOKEN
    reset_auth_token_state()


def wait_for_jobs(address: str) -> None:
    """Waits until the job server answers."""
    from ray.job_submission import JobSubmissionClient

    for _ in range(120):
        try:
            JobSubmissionClient(address).list_jobs()
            return
        except Exception:  # noqa: BLE001 - whatever a head that is starting says
            time.sleep(1)
    raise AssertionError(f"no job server at {address}")
