"""The record of a run: rows of metrics in a file of the run's own, and the same in MLflow, from rank 0 alone.

The file `metrics.jsonl` is exact and survives without a server: a resumed run cuts it at the step it
resumes from, so it reads like that of an undisturbed run. MLflow gets the rows asynchronously; it is never
waited for in a step.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

from components.core import TrackingConfig, experiment_id, write_text_atomic
from components.training.store import storing

logger = logging.getLogger(__name__)
SQLITE = "sqlite:///"


def absolute(tracking: TrackingConfig) -> TrackingConfig:
    """Returns the config with absolute paths: workers have a working directory of their own."""
    values = tracking.model_dump()
    if tracking.uri.startswith(SQLITE) and not tracking.uri.startswith(SQLITE + ":"):
        path = Path(tracking.uri.removeprefix(SQLITE)).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        values["uri"] = f"{SQLITE}{path}"
    location = tracking.artifact_location
    if location is not None and "://" not in location:
        values["artifact_location"] = Path(location).absolute().as_uri()
    return TrackingConfig.parse(values, source="tracking")


def open_run(tracking: TrackingConfig, run_name: str, run_id: str | None, params: dict[str, Any]) -> str:
    """Starts an MLflow run, or goes on with the one that a resumed run began.

    Args:
        tracking: With absolute paths.
        run_name: Shown in MLflow.
        run_id: Run to go on with, if the store still has it.
        params: Nested settings, logged flat ("train.optimizer.learning_rate").

    Returns:
        The run's id.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=tracking.uri)
    if run_id is not None:
        try:
            client.update_run(run_id, status="RUNNING")
            return run_id
        except MlflowException:
            logger.warning("MLflow does not know run %s any more: a new one is started", run_id)
    tags = {"photoverse.stage": "train"}
    new_id = client.create_run(experiment_id(client, tracking), run_name=run_name, tags=tags).info.run_id
    flat = [Param(key, str(value)[:500]) for key, value in flatten(params).items()]
    for start in range(0, len(flat), 100):  # MLflow takes a hundred at once
        client.log_batch(new_id, params=flat[start : start + 100])
    return new_id


def close_run(tracking: TrackingConfig, run_id: str, status: str) -> None:
    """Sets the final status, "FINISHED", "FAILED" or "KILLED"."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=tracking.uri).set_terminated(run_id, status=status)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


class Tracker:
    """Writes rows and artifacts of a run; one on rank 0.

    Args:
        folder: The run's folder; holds `metrics.jsonl` and `samples/`.
        start_step: Rows after this step, left by an interrupted attempt, are cut off.
        tracking: MLflow, with absolute paths; None keeps the file alone.
        run_id: Of the MLflow run.
    """

    def __init__(
        self, folder: Path, start_step: int, tracking: TrackingConfig | None, run_id: str | None
    ) -> None:
        self.folder, self._run_id, self._pending = folder, run_id, []  # type: ignore[var-annotated]
        self._path = folder / "metrics.jsonl"
        self.cut(start_step)
        self._client = None
        if tracking is not None and run_id is not None:
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=tracking.uri)

    def cut(self, step: int) -> None:
        """Takes away the rows after a step: the run goes on from it."""
        with storing("the log", self.folder):
            kept = [row for row in read_history(self.folder) if row["step"] <= step]
            write_text_atomic(self._path, "".join(json.dumps(row) + "\n" for row in kept))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Adds a row; MLflow gets it in the background.

        Raises:
            StoreFault: The row cannot be written.
        """
        with storing("the log", self.folder), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | metrics) + "\n")
        if self._client is None or self._run_id is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(f"train.{name}", value, now, step) for name, value in metrics.items()]
        self._pending.append(self._client.log_batch(self._run_id, metrics=rows, synchronous=False))

    def log_image(self, image: Any, name: str) -> None:
        """Keeps a PIL image in `samples/` and as an artifact of the run."""
        path = self.folder / "samples" / name
        with storing("sample pictures", self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        self._send(path, "samples")

    def log_file(self, path: Path, artifact_folder: str) -> None:
        """Keeps a file as an artifact of the run."""
        self._send(path, artifact_folder)

    def flush(self) -> None:
        """Waits until MLflow has every row; a store that fails costs a warning, not the run."""
        for operation in self._pending:
            try:
                operation.wait()
            except Exception as error:  # whatever the store or the network throws
                logger.warning("MLflow did not take some metrics: %s", error)
        self._pending.clear()

    def _send(self, path: Path, artifact_folder: str) -> None:
        if self._client is None or self._run_id is None:
            return
        try:
            self._client.log_artifact(self._run_id, str(path), artifact_path=artifact_folder)
        except Exception as error:  # whatever the store or the network throws
            logger.warning("MLflow did not take %s: %s", path.name, error)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of `metrics.jsonl`; a last line that was cut off by a crash is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
