"""The figures and the report, in the MLflow run of the checkpoint."""

import logging
from collections.abc import Sequence
from pathlib import Path

from components.core import TrackingConfig
from components.evaluation.scores import JudgeFigures

logger = logging.getLogger(__name__)


def figure_metrics(tables: Sequence[JudgeFigures]) -> dict[str, float]:
    """Returns metric names and values, e.g. `evaluate.identity.group.north.generated`.

    Names keep to the characters that every MLflow store takes.
    """
    named = {}
    for table in tables:
        for row_name, row in table.rows.items():
            place = "" if row_name == "all" else row_name.replace(": ", ".") + "."
            for column, value in row.items():
                if value.mean is None or (place and column != "generated"):
                    continue
                named[f"evaluate.{table.judge}.{place}{column}"] = value.mean
                if column == "generated" and value.interval is not None and not place:
                    (
                        named[f"evaluate.{table.judge}.generated_low"],
                        named[f"evaluate.{table.judge}.generated_high"],
                    ) = value.interval
        named[f"evaluate.{table.judge}.largest_gap"] = table.largest_gap
    return {
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in k): v
        for k, v in named.items()
    }


def log_to_run(
    tracking: TrackingConfig, run_id: str | None, tables: Sequence[JudgeFigures], folder: Path
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
    metrics = [Metric(name, value, now, 0) for name, value in figure_metrics(tables).items()]
    client.log_batch(run_id, metrics=metrics)
    for name in ("report.json", "report.html", "faces.png"):
        client.log_artifact(run_id, str(folder / name), artifact_path="evaluation")
