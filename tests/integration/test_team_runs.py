"""Three trainings and ten batches at once, for real: Prefect and MLflow on PostgreSQL, stages on one Ray."""

import asyncio
import json
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from PIL import Image

from components.core import TrackingConfig
from components.inference import Ledger
from components.portraits.world import portrait
from flows.deploy import POOL, deploy, parameters
from flows.environment import PROJECT
from flows.services import daemon
from tests.champion import CONSENT, register_champion
from tests.integration.ray_head import TOKEN, ray_head
from tests.integration.team import Team, team_services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
TRAININGS, BATCHES = 3, 10
RUNS_S = 1800


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def profile(tmp_path_factory, tiny_profile) -> Path:
    """The smallest settings, one worker a training."""
    values = yaml.safe_load(tiny_profile.read_text())
    values["train"]["num_workers"] = 1
    file = tmp_path_factory.mktemp("profile") / "one.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture(scope="module")
def team(tmp_path_factory, place, profile):
    """All services, our deployments without their limits of one run at a time, a worker, and a champion."""
    folder = tmp_path_factory.mktemp("team")
    with ExitStack() as stack:
        found: Team = stack.enter_context(team_services(folder))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, found.environment("worker")[name])
        mlflow = stack.enter_context(found.mlflow())
        champion = folder / "champion"
        champion.mkdir()
        register_champion(champion, tracking=TrackingConfig(uri=mlflow, artifact_location=None))
        prefect = stack.enter_context(found.prefect())
        head = stack.enter_context(ray_head(cpus=6))
        environment = found.environment("worker", PREFECT_API_URL=prefect, RAY_AUTH_TOKEN=TOKEN)
        given = parameters(root=str(place), ray_address=head, mlflow=mlflow)
        deploy(given=given | {"profile": str(profile)}, environment=environment)
        words = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        stack.enter_context(daemon("the worker", words, environment, folder / "worker.log"))
        yield found, prefect, environment["PREFECT_API_AUTH_STRING"]


def inbox(folder: Path) -> str:
    """Makes a file of one request, with its photo."""
    folder.mkdir()
    Image.fromarray(portrait(0, 0, 96).image_uint8).save(folder / "p0.png")
    request = {"id": "one", "photo": "p0.png", "prompt": "a photo of S*", "seed": 1, "consent": CONSENT}
    (folder / "requests.jsonl").write_text(json.dumps(request) + "\n")
    return str(folder / "requests.jsonl")


def ask(url: str, login: str, question):
    from prefect.client.orchestration import PrefectClient

    async def run():
        async with PrefectClient(url, auth_string=login) as client:
            return await question(client)

    return asyncio.run(run())


async def start(client, place: Path) -> list[UUID]:
    """Starts all runs; a team that wants several at once takes the deployments' limit away."""
    from prefect.client.schemas.actions import DeploymentUpdate

    named = {
        name: await client.read_deployment_by_name(f"photoverse/{name}") for name in ("train", "personalize")
    }
    for found in named.values():
        await client.update_deployment(found.id, DeploymentUpdate(concurrency_limit=None))
    wanted = [("train", {"name": f"training-{i}"}) for i in range(TRAININGS)]
    wanted += [
        ("personalize", {"name": f"batch-{i}", "requests": inbox(place / f"inbox-{i}")})
        for i in range(BATCHES)
    ]
    return [
        (await client.create_flow_run_from_deployment(named[name].id, parameters=given)).id
        for name, given in wanted
    ]


def test_three_trainings_and_ten_batches_at_once(team, place):
    services, url, login = team
    runs = ask(url, login, lambda client: start(client, place))

    async def states(client):
        return [(await client.read_flow_run(run)).state for run in runs]

    at_once, begin, found = 0, time.monotonic(), ask(url, login, states)
    while not all(state.is_final() for state in found):
        assert time.monotonic() - begin < RUNS_S, [state.name for state in found]
        time.sleep(3)
        found = ask(url, login, states)
        at_once = max(at_once, sum(state.is_running() for state in found))
    print(f"{len(runs)} runs in {time.monotonic() - begin:.0f} s, {at_once} at once")
    assert [state.name for state in found] == ["Completed"] * len(runs), [state.message for state in found]
    assert at_once == len(runs), "they did not run at the same time"
    for i in range(BATCHES):
        rows = Ledger(PROJECT / place / f"batch-{i}" / "personalize").rows()
        assert [row.status for row in rows] == ["done"], rows
    trained = "select count(*) from runs where name like 'training-%' and status = 'FINISHED'"
    assert services.postgres.ask("mlflow", trained) == str(TRAININGS)
    for name in ("prefect.log", "mlflow.log", "worker.log"):
        log = (services.folder / name).read_text().lower()
        assert "is locked" not in log, name
        assert "deadlock" not in log, name
