"""The services of infra/compose on loopback, without containers: the same commands, variables and scripts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.environment import PROJECT, child_environment
from flows.services import HOST, daemon, free_port, wait_for
from tests.compose import FOLDER, Compose, example_values
from tests.object_store import object_store
from tests.postgres import PROGRAMS, Postgres, postgres_server


@dataclass(frozen=True)
class Team:
    """A team's PostgreSQL and store, and the compose file with values of a test."""

    compose: Compose
    postgres: Postgres
    store: str
    folder: Path

    def environment(self, service: str, **more: str) -> dict[str, str]:
        """Returns a service's variables from the compose file, pointed at this machine."""
        own = self.compose.environment(service)
        if "PGHOST" in own:
            own |= {"PGHOST": HOST, "PGPORT": str(self.postgres.port)}
        for name in ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
            if name in own:
                own[name] = self.store
        if path := own.get("MLFLOW_AUTH_CONFIG_PATH"):
            own["MLFLOW_AUTH_CONFIG_PATH"] = str(PROJECT / path.removeprefix("/app/"))
        if "PREFECT_HOME" in own:
            own["PREFECT_HOME"] = str(self.folder / f"prefect-{service}")
        return child_environment(extra=own | more)

    def words(self, service: str, port: int, own_port: int) -> list[str]:
        """Returns a service's command from the compose file, on a port of this machine."""
        words = [
            word.replace(f":{own_port}", f":{port}") for word in self.compose.services[service]["command"]
        ]
        swap = {"--host=0.0.0.0": f"--host={HOST}", f"--port={own_port}": f"--port={port}"}
        return ["-m", *(swap.get(word, word) for word in words)]

    @contextmanager
    def mlflow(self) -> Iterator[str]:
        """Runs MLflow's server for the block; yields its address."""
        port, log = free_port(), self.folder / "mlflow.log"
        words = self.words("mlflow", port, 5000)
        with daemon("MLflow", words, self.environment("mlflow"), log) as process:
            wait_for(f"http://{HOST}:{port}/health", process, "MLflow", log)
            yield f"http://{HOST}:{port}"

    @contextmanager
    def prefect(self) -> Iterator[str]:
        """Runs Prefect's server for the block; yields the address of its API."""
        port, log = free_port(), self.folder / "prefect.log"
        url = f"http://{HOST}:{port}/api"
        environment = self.environment("prefect", PREFECT_API_URL=url)
        with daemon("Prefect's server", self.words("prefect", port, 4200), environment, log) as process:
            wait_for(f"{url}/health", process, "Prefect's server", log)
            yield url


@contextmanager
def team_services(folder: Path) -> Iterator[Team]:
    """Runs PostgreSQL and an S3 store for the block, with the compose file's databases and bucket."""
    compose = Compose.load(example_values())
    options = compose.services["postgres"]["command"][1:]
    server = postgres_server(compose.values["POSTGRES_PASSWORD"], *options)
    with object_store(HOST) as url, server as postgres:
        make_databases(compose, postgres)
        team = Team(compose, postgres, url, folder)
        make_bucket(team)
        yield team


def make_databases(compose: Compose, postgres: Postgres) -> None:
    """Runs the script that PostgreSQL's image runs at its first start."""
    environment = os.environ | compose.environment("postgres") | postgres.environment
    environment["PATH"] = f"{PROGRAMS}{os.pathsep}{environment['PATH']}"
    subprocess.run(["sh", FOLDER / "databases.sh"], env=environment, check=True, timeout=60)


def make_bucket(team: Team) -> None:
    """Runs the command of the compose file that makes the bucket."""
    _, *words = team.compose.services["bucket"]["command"]
    subprocess.run([sys.executable, *words], env=team.environment("bucket"), check=True, timeout=60)
