"""The figures and the report, in the MLflow run of the checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.core import TrackingConfig
from components.evaluation.scores import JudgeFigures

logger = logging.getLogger(__name__)


def figure_metrics(tables: Sequence[JudgeFigures]) -> dict[str, float]:
    """Returns metric names and values, e.g. `evaluate.identity.group.north.generated`.

    Of groups and genders only the generated similarity is logged; the report has the rest. Names keep to the
    characters that every MLflow store takes.
    """
    named: dict[str, float] = {}
    for table in tables:
        prefix = f"evaluate.{table.judge}"
        everyone = table.rows["all"]
        named |= {
            f"{prefix}.{column}": value.mean for column, value in everyone.items() if value.mean is not None
        }
        if everyone["generated"].interval is not None:
            low, high = everyone["generated"].interval
            named |= {f"{prefix}.generated_low": low, f"{prefix}.generated_high": high}
        for name, row in table.rows.items():
            if name != "all" and row["generated"].mean is not None:
                named[f"{prefix}.{name.replace(': ', '.')}.generated"] = row["generated"].mean
        named[f"{prefix}.largest_gap"] = table.largest_gap
    return {_plain(name): value for name, value in named.items()}


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)


def log_to_run(
    tracking: TrackingConfig,
    run_id: str | None,
    tables: Sequence[JudgeFigures],
    folder: Path,
    more: Mapping[str, float | None] | None = None,
) -> None:
    """Logs figures and report to the run; says so and goes on where the checkpoint has none."""
    if run_id is None:
        logger.info("the checkpoint has no MLflow run: the figures stay in %s", folder)
        return
    import time

    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracking_uri=tracking.uri)
    now = int(time.time() * 1000)
    known = {_plain(name): value for name, value in (more or {}).items() if value is not None}
    named = figure_metrics(tables) | known
    metrics = [Metric(name, value, now, 0) for name, value in named.items()]
    client.log_batch(run_id, metrics=metrics)
    for name in ("report.json", "report.html", "faces.png"):
        client.log_artifact(run_id, str(folder / name), artifact_path="evaluation")
