"""photoverse/train: portraits or photos -> prepare -> train -> evaluate -> promote. Read this first.

Each stage is a process of its own (`photoverse stage NAME`); they meet at records in the run's folder. The
functions of this file and its neighbours share the flow name "photoverse", so that deployments are called
photoverse/train and so on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from components.core import Record
from flows.artifacts import publish_links
from flows.config import PipelineConfig, open_run, resolve
from flows.tasks import stage

RunnerName = Literal["local", "ray-job"]


def named(kind: str) -> Callable[[], str]:
    """Returns what gives a flow run its name in Prefect's pages: the flow, the profile and the run's name."""

    def run_name() -> str:
        given = flow_run.parameters
        return " ".join(str(word) for word in (kind, given.get("profile"), given.get("name")) if word)

    return run_name


def with_runner(overrides: dict[str, Any] | None, runner: str, ray_address: str | None) -> dict[str, Any]:
    """Returns the overrides with the runner that the flow's parameters ask for."""
    values = dict(overrides or {})
    if runner != "local" or ray_address:
        values["runner"] = {**values.get("runner", {}), "kind": runner, "ray_address": ray_address}
    return values


def run_stages(
    names: tuple[str, ...], config: PipelineConfig, config_file: Path
) -> dict[str, dict[str, Any]]:
    """Runs stages one after the other in the current flow; returns their records as plain values."""
    records: dict[str, Record] = {name: stage(name, config, config_file) for name in names}
    publish_links(config_file, config.tracking, records)
    return {name: record.model_dump(mode="json") for name, record in records.items()}


def data_stages(config: PipelineConfig) -> tuple[str, ...]:
    """Returns the stages that end in shards: people are drawn only when no photos are given."""
    return ("prepare",) if config.photos or not config.prepare.needs_folder else ("portraits", "prepare")


@flow(name="photoverse", flow_run_name=named("train"))
def train(
    profile: str = "portraits",
    name: str | None = None,
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    runner: RunnerName = "local",
    ray_address: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Trains PhotoVerse from photos to a registered model.

    Args:
        profile: Name of a profile in infra/profiles, or the path of a YAML file.
        name: Name of the run; a run that exists is refused unless resume is set. Empty: made from profile and
            time.
        overrides: Settings to lay over the profile, nested like it, e.g. {"train": {"steps": 300}}.
        resume: Go on with a run that exists; its finished stages are kept.
        runner: "local" runs stages as processes here, "ray-job" on the cluster at ray_address.
        ray_address: Job server of the Ray cluster, e.g. http://head:8265.
    """
    config = resolve(profile, with_runner(overrides, runner, ray_address), name=name)
    config_file = open_run(config, resume=resume)
    return run_stages((*data_stages(config), "train", "evaluate", "promote"), config, config_file)
