"""MLflow's experiment: found, or made once however many runs begin at the same moment."""

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from components.core.settings import TrackingConfig


def experiment_id(client: Any, tracking: TrackingConfig) -> str:
    """Returns the experiment's id, making it if need be.

    Args:
        client: An `MlflowClient`.
        tracking: Name of the experiment, and where its artifacts go.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(tracking.experiment)
    if found is None:
        try:
            return str(client.create_experiment(tracking.experiment, artifact_location=_location(tracking)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(tracking.experiment)  # another run was quicker
    return str(found.experiment_id)


def _location(tracking: TrackingConfig) -> str | None:
    """Returns the artifact location; a local folder is made absolute, for later readers start elsewhere."""
    place = tracking.artifact_location
    if place is None or urlparse(place).scheme:
        return place
    return Path(place).resolve().as_uri()
