"""`photoverse deploy`: the work pool, the deployments and the automations on a Prefect server.

The server is that of PREFECT_API_URL. All of it may be repeated: what is there is brought up to date.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.core import deep_merge, load_yaml
from flows.environment import PROJECT, child_environment

POOL = "photoverse"
PREFECT_FILE = PROJECT / "infra" / "prefect.yaml"
AUTOMATIONS_FILE = PROJECT / "infra" / "prefect-automations.yaml"


def run_prefect(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Runs one `prefect` command; returns what it printed, or raises RuntimeError with it."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=PROJECT, env=dict(environment), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"prefect {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def parameters(
    *,
    root: str | None = None,
    ray_address: str | None = None,
    mlflow: str | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Returns the parameters of all deployments of a team.

    Args:
        root: Folder of all runs.
        ray_address: Job server of a Ray cluster.
        mlflow: MLflow's address; artifacts go through it.
        store: URL of the store that nodes share where they share no root.
    """
    overrides: dict[str, Any] = {key: value for key, value in (("root", root), ("store", store)) if value}
    if mlflow:
        overrides["tracking"] = {"uri": mlflow, "artifact_location": None}
    given: dict[str, Any] = {"overrides": overrides} if overrides else {}
    return given | ({"runner": "ray-job", "ray_address": ray_address} if ray_address else {})


def deployments(pool: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns infra/prefect.yaml with the pool and the parameters in every deployment.

    `photoverse/evaluate` finds its run by name, so the root is also a parameter of its own there.
    """
    document = load_yaml(PREFECT_FILE)
    document.pop("definitions", None)
    for deployment in document["deployments"]:
        deployment["work_pool"] = {**deployment["work_pool"], "name": pool}
        deployment["parameters"] = deep_merge(deployment.get("parameters") or {}, given)
        root = (given.get("overrides") or {}).get("root")  # with a store, each node's own folder
        if root and deployment["name"] == "evaluate":
            deployment["parameters"]["root"] = root
    return document


def deploy(
    pool: str = POOL,
    given: Mapping[str, Any] | None = None,
    template: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Makes pool, deployments and automations; returns a line of what was made.

    Args:
        pool: Name of the work pool.
        given: Parameters of all deployments, see `parameters`.
        template: File of a base job template: the pool is of kind kubernetes. None makes one of processes.
        environment: Of the `prefect` commands; None takes ours.
    """
    environment = environment or child_environment()
    if not environment.get("PREFECT_API_URL"):
        raise ValueError("PREFECT_API_URL is not set: name the server, e.g. http://127.0.0.1:4200/api")
    kind = ["--type", "kubernetes", "--base-job-template", template] if template else ["--type", "process"]
    run_prefect(["work-pool", "create", pool, *kind, "--overwrite"], environment)
    document = deployments(pool, given or {})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        run_prefect(["deploy", "--all", "--prefect-file", str(file)], environment)
    made = automate(environment)
    return f"pool {pool}: {len(document['deployments'])} deployments, automations: {', '.join(made)}"


def automate(environment: Mapping[str, str]) -> list[str]:
    """Makes the automations; one of the same name is replaced."""
    wanted = load_yaml(AUTOMATIONS_FILE)["automations"]
    asyncio.run(_replace(environment["PREFECT_API_URL"], environment.get("PREFECT_API_AUTH_STRING"), wanted))
    return [automation["name"] for automation in wanted]


async def _replace(url: str, login: str | None, wanted: list[dict[str, Any]]) -> None:
    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore

    async with PrefectClient(url, auth_string=login) as client:
        for automation in wanted:
            for old in await client.read_automations_by_name(automation["name"]):
                await client.delete_automation(old.id)
            await client.create_automation(AutomationCore.model_validate(automation))
