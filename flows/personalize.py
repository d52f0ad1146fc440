"""photoverse/personalize: requests to pictures and a ledger; nightly, or whenever asked."""

from typing import Any

from prefect import flow

from flows.config import open_run, resolve
from flows.pipeline import RunnerName, named, run_stages, with_runner


@flow(name="photoverse", flow_run_name=named("personalize"))
def personalize(
    requests: str,
    profile: str = "portraits",
    name: str = "nightly",
    model_uri: str | None = None,
    overrides: dict[str, Any] | None = None,
    runner: RunnerName = "local",
    ray_address: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Makes the pictures that requests ask for; a rerun makes only what is missing or has changed.

    Args:
        requests: JSONL, CSV or Parquet file of requests, or an inbox of such files; a path or a URL.
        profile: Name of a profile in infra/profiles, or the path of a YAML file.
        name: Name of the run that keeps pictures and ledger; the same name goes on where it stopped.
        model_uri: Model to use, e.g. models:/photoverse/3; empty: the run's own promotion, else the champion.
        overrides: Settings to lay over the profile, nested like it.
        runner: "local" runs stages as processes here, "ray-job" on the cluster at ray_address.
        ray_address: Job server of the Ray cluster.
    """
    values = with_runner(overrides, runner, ray_address) | {"requests": requests, "model_uri": model_uri}
    config = resolve(profile, values, name=name)
    return run_stages(("personalize",), config, open_run(config, resume=True, file="personalize.yaml"))
