"""MLflow and Prefect as a team runs them: on a real PostgreSQL, artifacts in a store, closed to strangers."""

import asyncio
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from components.core import load_yaml
from flows.deploy import PREFECT_FILE
from flows.environment import PROJECT
from tests.integration.team import Team, team_services

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    with team_services(tmp_path_factory.mktemp("team")) as found:
        yield found


@pytest.fixture(scope="module")
def mlflow_url(team: Team):
    with team.mlflow() as url:
        yield url


@pytest.fixture(scope="module")
def prefect_url(team: Team):
    with team.prefect() as url:
        yield url


def status(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_each_service_has_its_own_role_that_sees_its_own_database_alone(team):
    password = team.compose.environment("mlflow")["PGPASSWORD"]
    login = team.postgres.login("mlflow", password)
    assert team.postgres.run("psql", "-d", "mlflow", "-Atc", "select 1", environment=login) == "1"
    with pytest.raises(AssertionError, match="permission denied for database"):
        team.postgres.run("psql", "-d", "prefect", "-Atc", "select 1", environment=login)
    with pytest.raises(AssertionError, match="password authentication failed"):
        team.postgres.run("psql", "-d", "mlflow", "-Atc", "select 1", environment=login | {"PGPASSWORD": "x"})


def test_mlflow_refuses_strangers_and_foreign_host_names(team, mlflow_url):
    assert status(f"{mlflow_url}/health") == 200
    search = f"{mlflow_url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert status(search) == 401
    assert (
        status(search, Host="evil.example.org") == 403
    )  # DNS rebinding: a page elsewhere names this address


CLIENT = """
import mlflow, os, pathlib, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("photoverse")
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    pathlib.Path("adapter.bin").write_bytes(b"weights")
    mlflow.log_artifact("adapter.bin")
    print(run.info.artifact_uri)
client = mlflow.MlflowClient()
client.create_registered_model("photoverse")
version = client.create_model_version("photoverse", f"{run.info.artifact_uri}/adapter.bin", run.info.run_id)
client.set_registered_model_alias("photoverse", "champion", version.version)
found = client.get_model_version_by_alias("photoverse", "champion")
print(pathlib.Path(mlflow.artifacts.download_artifacts(found.source)).read_text())
"""


def test_a_client_needs_no_key_of_the_store(team, mlflow_url, tmp_path):
    """The server hands artifacts on; the client knows its own password and nothing else."""
    environment = team.environment("worker")
    for name in [name for name in environment if name.startswith(("AWS_", "MLFLOW_S3"))]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, mlflow_url], cwd=tmp_path, env=environment, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.split()
    assert lines[0].startswith("mlflow-artifacts:/")
    assert lines[-1] == "weights"
    question = "select m.name, a.alias from registered_models m join registered_model_aliases a using (name)"
    assert team.postgres.ask("mlflow", question) == "photoverse|champion"
    assert team.postgres.ask("mlflow_auth", "select username from users") == "admin"
    assert stored(team, "mlflow/") == ["adapter.bin"]


def stored(team: Team, prefix: str) -> list[str]:
    """Returns the names of the objects below a prefix of the bucket, without their folders."""
    import s3fs

    environment = team.environment("bucket")
    store = s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"], secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=team.store, skip_instance_cache=True,
    )  # fmt: skip
    return sorted(path.rsplit("/", 1)[1] for path in store.find(f"photoverse/{prefix}"))


@pytest.mark.slow
def test_prefect_refuses_strangers(team, prefect_url):
    assert status(f"{prefect_url}/health") == 200
    assert status(f"{prefect_url}/admin/version") == 401


@pytest.fixture(scope="module")
def deployed(team: Team, prefect_url):
    """What the compose file's `deploy` says, run twice: it may be repeated."""
    environment = team.environment("deploy", PREFECT_API_URL=prefect_url)
    options = ["--root", "/app/runs", "--ray-address", "http://head:8265", "--mlflow", "http://mlflow:5000"]
    options += ["--store", "s3://photoverse/runs"]
    for words in ([], options):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "deploy", *words], cwd=PROJECT, env=environment, text=True,
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert "deployments, automations: dead runs" in done.stdout
    return environment["PREFECT_API_AUTH_STRING"]


def ask(url: str, login: str, question):
    from prefect.client.orchestration import PrefectClient

    async def run():
        async with PrefectClient(url, auth_string=login) as client:
            return await question(client)

    return asyncio.run(run())


@pytest.mark.slow
def test_a_teams_deployments_submit_to_its_cluster(prefect_url, deployed):
    async def read(client):
        return await client.read_deployments(), await client.read_automations()

    deployments, automations = ask(prefect_url, deployed, read)
    expected = load_yaml(PREFECT_FILE)["deployments"]
    assert sorted(found.name for found in deployments) == sorted(one["name"] for one in expected)
    for found in deployments:
        assert found.parameters["runner"] == "ray-job"
        assert found.parameters["ray_address"] == "http://head:8265"
        assert found.parameters["overrides"] == {
            "root": "/app/runs",
            "store": "s3://photoverse/runs",
            "tracking": {"uri": "http://mlflow:5000", "artifact_location": None},
        }
    assert [automation.name for automation in automations] == ["dead runs"]


@pytest.mark.slow
def test_thirteen_runs_at_once_lock_nothing(team, prefect_url, deployed):
    """As 3 trainings and 10 batches do: states and logs from all of them at the same time."""
    from prefect.states import Completed, Pending, Running

    async def one(client, deployment):
        run = await client.create_flow_run_from_deployment(deployment.id)
        for state in (Pending(), Running()):
            await client.set_flow_run_state(run.id, state, force=True)
        for _ in range(5):
            line = {
                "name": "x", "level": 20, "message": "y" * 200, "timestamp": run.created.isoformat(),
                "flow_run_id": str(run.id),
            }  # fmt: skip
            await client.create_logs([line] * 20)
        await client.set_flow_run_state(run.id, Completed(), force=True)
        return (await client.read_flow_run(run.id)).state.name

    async def all_at_once(client):
        train = await client.read_deployment_by_name("photoverse/train")
        batch = await client.read_deployment_by_name("photoverse/personalize")
        return await asyncio.gather(*(one(client, d) for d in [train] * 3 + [batch] * 10))

    assert ask(prefect_url, deployed, all_at_once) == ["Completed"] * 13
    completed = "select count(*) from flow_run where state_type = 'COMPLETED'"
    assert team.postgres.ask("prefect", completed) == "13"
    log = (team.folder / "prefect.log").read_text().lower()
    assert "locked" not in log
    assert "deadlock" not in log
