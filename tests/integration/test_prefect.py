"""Against a real Prefect server and worker on loopback: a deployment runs, is cancelled, and is scheduled."""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml

from flows.deploy import deploy, run_prefect
from flows.environment import PROJECT
from flows.processes import MARK
from flows.services import environment_for, free_port, prefect_server, prefect_worker

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Prefect:
    """A running server with its worker."""

    api_url: str
    folder: Path

    def command(self, *arguments: str) -> str:
        return run_prefect(list(arguments), environment_for(self.api_url, self.folder / "prefect"))

    def ask(self, question):
        """Returns what `question(client)` awaits."""
        return asyncio.run(self._ask(question))

    async def _ask(self, question):
        from prefect.client.orchestration import PrefectClient

        async with PrefectClient(self.api_url) as client:
            return await question(client)

    def state(self, run: UUID) -> str:
        return self.ask(lambda client: client.read_flow_run(run)).state.name


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    folder = tmp_path_factory.mktemp("services")
    with prefect_server(free_port(), folder) as api_url:
        deploy(environment=environment_for(api_url, folder / "prefect"))
        with prefect_worker(api_url, folder):
            yield Prefect(api_url, folder)


def stage_processes() -> list[psutil.Process]:
    """Returns the processes of stages on this machine that descend from this test's worker."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.environ().get("PYTEST_RUN") == os.environ["PYTEST_RUN"]:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(autouse=True, scope="module")
def run_mark():
    """Marks everything that this test run starts."""
    os.environ["PYTEST_RUN"] = str(os.getpid())
    yield
    del os.environ["PYTEST_RUN"]


def wait_until(true, timeout_s: float, what: str) -> float:
    """Waits until `true()`; returns the seconds that it took."""
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if true():
            return time.monotonic() - start
        time.sleep(1)
    raise AssertionError(f"waited {timeout_s} s in vain: {what}")


def test_the_nightly_schedule_makes_runs(prefect):
    """With some versions of SQLAlchemy the scheduler fails in the server's log alone."""

    async def scheduled(client):
        deployment = await client.read_deployment_by_name("photoverse/personalize")
        runs = await client.get_scheduled_flow_runs_for_deployments([deployment.id])
        return [run.expected_start_time for run in runs]

    wait_until(lambda: prefect.ask(scheduled), 90, "no scheduled run of photoverse/personalize")
    at = prefect.ask(scheduled)[0]
    assert (at.hour, at.minute) == (2, 0)


def test_parameters_make_a_form(prefect):
    deployment = prefect.ask(lambda client: client.read_deployment_by_name("photoverse/train"))
    properties = deployment.parameter_openapi_schema["properties"]
    assert {"profile", "name", "overrides", "resume", "runner", "ray_address"} <= set(properties)
    assert properties["runner"]["enum"] == ["local", "ray-job"]
    assert "infra/profiles" in properties["profile"]["description"]
    assert "registered model" in deployment.description


@pytest.mark.timeout(2400)
def test_the_train_deployment_passes_and_shows_its_results(prefect, tiny_profile):
    printed = prefect_run(prefect, "train", profile=str(tiny_profile), name="deployed")
    assert "Completed" in printed
    root = Path(yaml.safe_load(tiny_profile.read_text())["root"])
    records = {path.stem for path in (root / "deployed" / "records").glob("*.json")}
    assert records == {"portraits", "prepare", "train", "evaluate", "promote"}

    async def artifacts(client):
        return {artifact.key: artifact for artifact in await client.read_artifacts()}

    shown = prefect.ask(artifacts)
    assert {"train-figures", "evaluate-figures", "prepare-picture", "train-progress", "links"} <= set(shown)
    figures = {row["figure"]: row["value"] for row in json.loads(shown["evaluate-figures"].data)}
    assert "identity.generated" in figures
    assert shown["prepare-picture"].data.startswith("data:image/jpeg;base64,")


def test_a_wrong_setting_fails_at_once_and_is_named(prefect, tiny_profile):
    with pytest.raises(RuntimeError) as caught:
        prefect_run(
            prefect, "train", profile=str(tiny_profile), name="wrong", overrides={"train": {"stesp": 3}}
        )
    assert "Failed" in str(caught.value)

    async def last_message(client):
        runs = await client.read_flow_runs(limit=20)
        return next(run.state.message for run in runs if run.parameters.get("name") == "wrong")

    assert "train.stesp: Extra inputs are not permitted" in prefect.ask(last_message)


@pytest.mark.timeout(2400)
def test_cancelling_ends_the_stage_within_20_s(prefect, tiny_profile):
    """Cancels in the middle of training, when Ray, its workers and the stage are all up."""
    overrides = {"train": {"steps": 100_000, "checkpoint_every": 100_000}}
    arguments = parameters(profile=str(tiny_profile), name="cancelled", overrides=overrides)
    printed = prefect.command("deployment", "run", "photoverse/train", *arguments)
    run = UUID(
        next(word for line in printed.splitlines() if "UUID" in line for word in line.split() if "-" in word)
    )
    folder = Path(yaml.safe_load(tiny_profile.read_text())["root"]) / "cancelled" / "train"

    def training():
        assert prefect.state(run) not in ("Failed", "Crashed"), prefect.command("flow-run", "logs", str(run))[
            -3000:
        ]
        return any(path.stat().st_size for path in folder.glob("*/metrics.jsonl"))

    wait_until(training, 600, "training did not start")
    wait_until(lambda: len(stage_processes()) > 3, 60, "Ray did not start")
    time.sleep(10)
    prefect.command("flow-run", "cancel", str(run))
    took = wait_until(lambda: not stage_processes(), 40, "the stage's processes are still there")
    wait_until(lambda: prefect.state(run) == "Cancelled", 30, f"the run shows {prefect.state(run)}")
    assert took <= 20


def parameters(**values) -> list[str]:
    """Returns the command line's words for the parameters of a deployment run."""
    return [word for key, value in values.items() for word in ("--param", f"{key}={json.dumps(value)}")]


def prefect_run(prefect: Prefect, deployment: str, **values) -> str:
    """Runs a deployment, watches it to its end, and returns what was printed."""
    words = [
        "deployment",
        "run",
        f"photoverse/{deployment}",
        "--watch",
        "--watch-interval",
        "2",
        *parameters(**values),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=PROJECT, env=environment_for(prefect.api_url, prefect.folder / "prefect"),
        capture_output=True, text=True, timeout=2300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout + done.stderr
