"""photoverse/prepare: photos, or drawn people, to shards that all runs with the same settings share."""

from typing import Any

from prefect import flow

from flows.config import open_run, resolve
from flows.pipeline import RunnerName, data_stages, named, run_stages, with_runner


@flow(name="photoverse", flow_run_name=named("prepare"))
def prepare(
    profile: str = "portraits",
    name: str | None = None,
    photos: str | None = None,
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    runner: RunnerName = "local",
    ray_address: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Prepares photos for training: faces found, cropped, masked, encoded, written as shards.

    Args:
        profile: Name of a profile in infra/profiles, or the path of a YAML file.
        name: Name of the run; empty: made from profile and time.
        photos: Folder of photos; empty: the profile's, else drawn people.
        overrides: Settings to lay over the profile, nested like it.
        resume: Go on with a run that exists.
        runner: "local" runs stages as processes here, "ray-job" on the cluster at ray_address.
        ray_address: Job server of the Ray cluster.
    """
    values = with_runner(overrides, runner, ray_address)
    if photos:
        values["photos"] = photos
    config = resolve(profile, values, name=name)
    return run_stages(data_stages(config), config, open_run(config, resume=resume))
