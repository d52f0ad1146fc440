"""What a flow shows in Prefect's pages when a stage is done: a table of figures, a picture, links."""

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from components.core import (
    Checkpoint,
    EvaluationReport,
    Personalization,
    Promotion,
    Record,
    ShardManifest,
    TrackingConfig,
)
from flows.batch_summary import BATCH_KEY, batch_summary
from flows.environment import MLFLOW_PAGE, PROJECT

PICTURE_SIDE = 1200
"""Longest side of a picture that travels inside an artifact, in pixels."""


def publish(name: str, record: Record) -> None:
    """Writes the artifacts of a finished stage; a server that refuses one never fails the run."""
    rows = [{"figure": key, "value": value} for key, value in figures_of(record).items()]
    try:
        create_table_artifact(table=rows, key=f"{name}-figures", description=f"Figures of stage {name}")
        if isinstance(record, Personalization):
            create_markdown_artifact(
                markdown=batch_summary(record), key=BATCH_KEY, description="What became of the requests"
            )
        if picture := picture_of(record):
            create_image_artifact(
                image_url=data_uri(picture), key=f"{name}-picture", description=str(picture)
            )
    except Exception as error:  # noqa: BLE001 - what the stage made is safe; only its display is missing
        get_run_logger().warning("could not show the figures of %s: %s", name, error)


def publish_links(config_file: Path, tracking: TrackingConfig, records: dict[str, Record]) -> None:
    """Writes one page of links: the run's folder, the report, MLflow's run, the model."""
    text = links(config_file, tracking, records)
    create_markdown_artifact(markdown=text, key="links", description="Where everything is")


def links(config_file: Path, tracking: TrackingConfig, records: dict[str, Record]) -> str:
    """Returns Markdown with a line for each place that a reader may want to go to."""
    lines = [f"- run folder: `{config_file.parent}`"]
    report, trained, promoted = records.get("evaluate"), records.get("train"), records.get("promote")
    if isinstance(report, EvaluationReport):
        path = PROJECT / report.report_html
        lines.append(f"- [report]({path.as_uri()}): `{path}`")
    if isinstance(trained, Checkpoint) and trained.mlflow_run_id:
        lines.append(f"- MLflow run: {_mlflow_link(tracking, f'runs/{trained.mlflow_run_id}')}")
    if isinstance(promoted, Promotion):
        reasons = "; ".join(promoted.reasons)
        lines.append(f"- decision: **{promoted.decision}** ({reasons}), model `{promoted.model_uri}`")
    return "\n".join(lines)


def _mlflow_link(tracking: TrackingConfig, page: str) -> str:
    server = tracking.uri if tracking.uri.startswith("http") else os.environ.get(MLFLOW_PAGE)
    if server:
        return f"[{page}]({server.rstrip('/')}/#/{page})"
    return f"`{page}` in `{tracking.uri}` (its page: `make services`)"


def picture_of(record: Record) -> Path | None:
    """Returns the picture that shows a stage's result best, if it made one."""
    if isinstance(record, ShardManifest):
        return _existing(record.contact_sheet)
    if isinstance(record, EvaluationReport):
        beside = (PROJECT / record.report_html).parent
        return next((path for path in sorted(beside.glob("*.png")) if path.is_file()), None)
    return None


def _existing(path: str | None) -> Path | None:
    return PROJECT / path if path and (PROJECT / path).is_file() else None


def data_uri(path: Path) -> str:
    """Returns the picture as a `data:` address, made small enough to travel to Prefect's page."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small: Any = picture.convert("RGB")
        small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def figures_of(values: Any, prefix: str = "") -> dict[str, Any]:
    """Returns a record's figures for tables, nested ones as `identity.generated`."""
    plain: Mapping[str, Any] = values.model_dump(mode="json") if isinstance(values, Record) else values
    figures: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            figures |= figures_of(value, f"{prefix}{key}.")
        elif isinstance(value, list) and len(value) <= 3 and all(isinstance(v, int | float) for v in value):
            figures[prefix + key] = ", ".join(f"{v:.4g}" for v in value)
        elif isinstance(value, int | float | str) and key != "schema_version":
            figures[prefix + key] = round(value, 4) if isinstance(value, float) else value
    return figures
