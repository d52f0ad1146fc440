"""photoverse/evaluate: measures a trained run again, with other dials or judges if asked."""

from typing import Any

from prefect import flow

from flows.config import open_run, reopen_run
from flows.pipeline import RunnerName, named, run_stages, with_runner


@flow(name="photoverse", flow_run_name=named("evaluate"))
def evaluate(
    name: str,
    root: str = "runs",
    overrides: dict[str, Any] | None = None,
    promote: bool = False,
    runner: RunnerName = "local",
    ray_address: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluates a run that photoverse/train has trained.

    Args:
        name: Name of the run.
        root: Folder of all runs.
        overrides: Settings to lay over the run's own, e.g. {"evaluation": {"pictures_per_reference": 10}}.
        promote: Let the gate decide about the new figures too.
        runner: "local" runs stages as processes here, "ray-job" on the cluster at ray_address.
        ray_address: Job server of the Ray cluster.
    """
    config = reopen_run(name, root, with_runner(overrides, runner, ray_address))
    names = ("evaluate", "promote") if promote else ("evaluate",)
    return run_stages(names, config, open_run(config, resume=True, file="evaluate.yaml"))
