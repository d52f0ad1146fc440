"""A flow run whose process was killed does not show Running for ever: an automation ends it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from uuid import UUID

import pytest

from flows.deploy import automate
from flows.services import environment_for, free_port, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FLOW = """
import time
from prefect import flow
from prefect.runtime import flow_run

@flow(name="photoverse")
def lives():
    print("run", flow_run.id, flush=True)
    time.sleep(600)

lives()
"""


def test_a_killed_run_is_crashed(tmp_path):
    from prefect.client.orchestration import PrefectClient

    async def state(url: str, run: UUID):
        async with PrefectClient(url) as client:
            return (await client.read_flow_run(run)).state

    with prefect_server(free_port(), tmp_path) as url:
        environment = environment_for(url, tmp_path / "prefect")
        assert automate(environment) == ["dead runs"]
        process = subprocess.Popen(
            [sys.executable, "-c", FLOW], env=environment, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout
            run = UUID(next(line for line in process.stdout if line.startswith("run ")).split()[1])
            time.sleep(45)  # a heartbeat comes each 30 s
            assert asyncio.run(state(url, run)).name == "Running"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        start = time.monotonic()
        while (found := asyncio.run(state(url, run))).name != "Crashed":
            assert time.monotonic() - start < 240, f"the run still shows {found.name}"
            time.sleep(3)
        assert "No heartbeat for 90 s" in found.message
