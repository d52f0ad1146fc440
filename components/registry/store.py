"""MLflow's registry: versions found by fingerprint, registered once, aliases, local files of a version."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core import TrackingConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

FINGERPRINT_TAG = "photoverse.fingerprint"
REPLACED_TAG, ROLLED_BACK_TAG = "photoverse.replaced", "photoverse.rolled_back"
MISSING = "RESOURCE_DOES_NOT_EXIST"


def quiet_mlflow() -> None:
    """Keeps MLflow from calling home, drawing bars for local copies, and warning of its own types."""
    warnings.filterwarnings("ignore", message=r".*Any type hint is inferred as AnyType", category=UserWarning)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def sqlite_file(uri: str) -> Path | None:
    """Returns the file of a `sqlite:///` URI; None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


class NoVersion(ValueError):
    """The registered model has no version of this number or alias."""


class Store:
    """The versions of one registered model.

    Args:
        tracking: Where MLflow keeps runs and models.
        model_name: The registered model.
    """

    def __init__(self, tracking: TrackingConfig, model_name: str) -> None:
        quiet_mlflow()
        from mlflow import MlflowClient

        if (file := sqlite_file(tracking.uri)) is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        self.tracking, self.name = tracking, model_name
        self.client: MlflowClient = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)

    def versions(self) -> list["ModelVersion"]:
        """Returns all versions, newest first; none if the model is not registered yet."""
        found = self.client.search_model_versions(f"name = '{self.name}'", max_results=1000)
        return sorted(found, key=lambda version: -int(version.version))

    def with_fingerprint(self, fingerprint: str) -> "ModelVersion | None":
        """Returns the version that was registered with this fingerprint."""
        return next((v for v in self.versions() if v.tags.get(FINGERPRINT_TAG) == fingerprint), None)

    def version(self, alias_or_version: str) -> "ModelVersion":
        """Returns the version of a number or an alias.

        Raises:
            NoVersion: There is none; the message says which there are.
        """
        from mlflow.exceptions import MlflowException

        try:
            if alias_or_version.isdigit():
                return self.client.get_model_version(self.name, alias_or_version)
            return self.client.get_model_version_by_alias(self.name, alias_or_version)
        except MlflowException as error:
            if error.error_code not in (MISSING, "INVALID_PARAMETER_VALUE"):
                raise
            raise NoVersion(
                f"no version or alias {alias_or_version!r} of model {self.name!r} at {self.tracking.uri}; "
                f"registered: {self._list() or 'none'}"
            ) from error

    def _list(self) -> str:
        """Returns the newest versions with their aliases, e.g. "3 (champion), 2, 1"."""
        versions = self.versions()[:10]
        aliases = self.client.get_registered_model(self.name).aliases if versions else {}
        names: dict[str, list[str]] = {}
        for alias, number in aliases.items():
            names.setdefault(str(number), []).append(alias)
        numbers = [str(version.version) for version in versions]
        return ", ".join(f"{n} ({', '.join(names[n])})" if n in names else n for n in numbers)

    def by_alias(self, alias: str) -> "ModelVersion | None":
        """Returns the version that the alias points to, None if it points to none."""
        try:
            return self.version(alias)
        except ValueError:
            return None

    def register(self, model_uri: str, tags: Mapping[str, str]) -> "ModelVersion":
        """Makes a version of a logged model, tags in the same step: a kill leaves no nameless version."""
        import mlflow

        with pointed_at(self.tracking):
            return mlflow.register_model(model_uri, self.name, tags=dict(tags), await_registration_for=None)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version, key, value)

    def describe(self, version: str, text: str) -> None:
        """Sets the version's description, cut to what every store takes."""
        self.client.update_model_version(self.name, version, text[:4900])

    def set_alias(self, alias: str, version: str) -> None:
        """Points the alias to the version."""
        self.client.set_registered_model_alias(self.name, alias, version)

    def drop_alias(self, alias: str) -> None:
        """Removes the alias; nothing happens where there is none."""
        if self.by_alias(alias) is not None:
            self.client.delete_registered_model_alias(self.name, alias)

    def files(self, version: str, part: str) -> Path:
        """Returns a folder of the version's files: in place in a local store, else downloaded, and it alone.

        Args:
            version: Number of the version.
            part: The folder, relative to the version's.

        Raises:
            ValueError: The version has no such folder, or it could not be brought here.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        uri = self.client.get_model_version_download_uri(self.name, version)
        try:
            with pointed_at(self.tracking):
                return Path(download_artifacts(f"{uri.rstrip('/')}/{part}"))
        except (MlflowException, OSError) as error:
            raise ValueError(
                f"{part} of version {version} of model {self.name!r} could not be read: {error}"
            ) from error


@contextmanager
def pointed_at(tracking: TrackingConfig) -> Iterator[Any]:
    """Points MLflow's global functions at the store for the block, and back afterwards.

    MLflow keeps both addresses in variables of the environment too, where child processes find them.
    """
    import mlflow

    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]
        mlflow.set_registry_uri(before["MLFLOW_REGISTRY_URI"])  # type: ignore[arg-type]
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
