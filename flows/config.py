"""One run's settings: every room's `Config` side by side. This is the only place where they meet.

Order: code default, then the profile's YAML, then flow parameters, each laid over the one before (deep
    merge). The result
is checked as a whole, frozen, and stored with the run. What a setting means is said in the room that uses it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core import (
    RuntimeConfig,
    SharedStore,
    StrictConfig,
    TrackingConfig,
    deep_merge,
    dump_yaml,
    load_yaml,
    write_text_atomic,
)
from components.evaluation import AblationConfig, EvaluationConfig
from components.face import FaceConfig
from components.inference import BatchConfig
from components.model import ModelConfig
from components.portraits import PortraitsConfig
from components.prepare import PrepareConfig
from components.registry import RegistryConfig
from components.serving import ServingConfig
from components.training import TrainConfig
from flows.environment import PROJECT

PROFILES = PROJECT / "infra" / "profiles"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunnerConfig(StrictConfig):
    """Where stages run.

    Attributes:
        kind: "local" starts child processes; "ray-job" submits the same commands to a Ray cluster.
        ray_address: Job server of the cluster, e.g. `http://head:8265`.
        timeout_s: Seconds after which a stage is ended as failed; None waits for ever.
    """

    kind: Literal["local", "ray-job"] = "local"
    ray_address: str | None = None
    timeout_s: float | None = Field(default=None, gt=0)


class PipelineConfig(StrictConfig):
    """Everything that decides what a run does.

    Attributes:
        name: Name of the run and of its folder below `root`.
        root: Folder of all runs; relative paths count from the project's folder.
        store: URL of a store that holds the same tree (`s3://bucket/runs`), where nodes share no root; None
            where they do.
        photos: Folder of photos to learn from, or its URL; None draws the people of the portrait world.
        requests: For `personalize`: a JSONL, CSV or Parquet file or an inbox of such files; path or URL.
        model_uri: Model that `personalize` takes; None takes the run's own promotion, else the champion.
    """

    name: str = "run"
    root: str = "runs"
    store: str | None = None
    photos: str | None = None
    requests: str | None = None
    model_uri: str | None = None
    portraits: PortraitsConfig = PortraitsConfig()
    prepare: PrepareConfig = PrepareConfig()
    face: FaceConfig = FaceConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ablation: AblationConfig = AblationConfig()
    registry: RegistryConfig = RegistryConfig()
    batch: BatchConfig = BatchConfig()
    serving: ServingConfig = ServingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    tracking: TrackingConfig = TrackingConfig()
    runner: RunnerConfig = RunnerConfig()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not RUN_NAME.fullmatch(name):
            raise ValueError(
                "a run's name is 1-100 letters, digits, '.', '_' or '-', and starts with no sign"
            )
        return name

    @model_validator(mode="after")
    def _crops_agree(self) -> Self:
        """A model sees faces cut as it was trained on them: the batch must not cut them otherwise."""
        for crop in ("identity_expand", "target_expand"):
            trained, used = getattr(self.prepare, crop), getattr(self.batch.photo_rules, crop)
            if trained != used:
                raise ValueError(
                    f"prepare.{crop} is {trained} but batch.photo_rules.{crop} is {used}: set both alike"
                )
        return self

    @model_validator(mode="after")
    def _store_fits(self) -> Self:
        """MLflow's database cannot lie in a folder that only one node has."""
        if self.store is None:
            return self
        if "://" not in self.store:
            raise ValueError(f"store: expected a URL such as s3://bucket/runs; found {self.store!r}")
        if self.runtime.ray_address != "local" and self.tracking.uri.startswith("sqlite"):
            raise ValueError(
                f"store {self.store} on a cluster needs an MLflow server: set tracking.uri to"
                f" http(s)://..., found {self.tracking.uri}"
            )
        return self

    @property
    def folder(self) -> Path:
        """The run's own folder: config.yaml, records/, logs/ and what its stages make."""
        return Path(self.root) / self.name

    @property
    def cache(self) -> Path:
        """What runs share: drawn people and shards, by fingerprint."""
        return Path(self.root) / "cache"


def profile_file(profile: str) -> Path:
    """Returns the YAML of a profile: a name in infra/profiles, or the path of a file.

    Raises:
        ValueError: There is no such profile.
    """
    if profile.endswith((".yaml", ".yml")):
        path = Path(profile) if Path(profile).is_absolute() else PROJECT / profile
    else:
        path = PROFILES / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml"))) or "none"
        raise ValueError(
            f"profile {profile!r} is not known ({path} is missing); known: {known}, or a YAML file's path"
        )
    return path


def profile_values(profile: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Reads a profile's values, laid over those of the profile that it `extends`, if it does.

    Raises:
        ValueError: There is no such profile, or it extends itself.
    """
    file = profile_file(profile)
    values = load_yaml(file)
    if (parent := values.pop("extends", None)) is None:
        return values
    if str(file) in above:
        raise ValueError(f"{file} extends itself by way of {' and '.join(above)}")
    return deep_merge(profile_values(parent, (*above, str(file))), values)


def resolve(
    profile: str, overrides: Mapping[str, Any] | None = None, *, name: str | None = None
) -> PipelineConfig:
    """Builds the config of a run.

    Args:
        profile: Name in infra/profiles or path of a YAML file.
        overrides: Values to lay over the profile, nested like it.
        name: Name of the run; None makes one from the profile and the time.

    Raises:
        ValueError: Unknown profile, unknown key or value out of range; the message names key, value and what
            is allowed.
    """
    values = deep_merge(profile_values(profile), overrides or {})
    if name is not None:
        values["name"] = name
    values.setdefault("name", f"{Path(profile).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    source = f"profile {profile!r}" + (" with flow parameters" if overrides or name else "")
    return PipelineConfig.parse(_keep_together(_on_cluster(values)), source=source)


def _on_cluster(values: dict[str, Any]) -> dict[str, Any]:
    """Makes the config of a run on a Ray cluster fit it: stages join the cluster, and paths are whole.

    A job runs in a copy of the project, in a folder of its own on some node: what it wrote below a relative
    root would be lost there.
    """
    if (values.get("runner") or {}).get("kind") != "ray-job":
        return values
    named = {"root": "runs"} | {key: values[key] for key in ("root", "photos", "requests") if values.get(key)}
    places = {key: path if "://" in path else str(PROJECT / path) for key, path in named.items()}
    runtime = values.get("runtime") or {}
    if runtime.get("ray_address", "local") == "local":
        runtime = {**runtime, "ray_address": "auto"}
    return values | places | {"runtime": runtime}


def _keep_together(values: dict[str, Any]) -> dict[str, Any]:
    """Puts MLflow's store below the run root when the root is moved and the store is not."""
    root = values.get("root")
    if not isinstance(root, str) or root == "runs":
        return values
    store = {"uri": f"sqlite:///{root}/mlflow/mlflow.db", "artifact_location": f"{root}/mlflow/artifacts"}
    tracking = values.get("tracking") or {}
    return values if "uri" in tracking else values | {"tracking": store | tracking}


def load_config(path: Path) -> PipelineConfig:
    """Reads a resolved config, as `photoverse stage --config` gets it.

    Raises:
        ValueError: The file is missing, is not YAML, or is not a valid config.
    """
    return PipelineConfig.parse(_keep_together(load_yaml(path)), source=str(path))


def shared_store(url: str | None, root: str) -> SharedStore | None:
    """Returns the store that stands for the run root, None where the root itself is shared."""
    return None if url is None else SharedStore(url=url, root=str(PROJECT / root))


def open_run(config: PipelineConfig, *, resume: bool = False, file: str = "config.yaml") -> Path:
    """Makes the run's folder and stores the config there.

    Args:
        config: The run's resolved config.
        resume: Go on with a run that exists: its finished stages are kept where their config is still the
            same.
        file: Name to store the config under; flows that come after training leave `config.yaml` as it is.

    Returns:
        The path of the stored config, absolute.

    Raises:
        ValueError: The run exists and `resume` is not set.
    """
    folder = PROJECT / config.folder
    stored = folder / file
    store = shared_store(config.store, config.root)
    if ((folder / "config.yaml").exists() or (store and store.has(folder / "config.yaml"))) and not resume:
        raise ValueError(
            f"run {config.name!r} exists in {config.root}: choose another name, or set resume=true to go on"
        )
    for part in ("records", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if config.tracking.uri.startswith("sqlite:///"):
        (PROJECT / config.tracking.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(stored, dump_yaml(config))
    if store:
        store.send_file(stored)
    return stored


def reopen_run(name: str, root: str = "runs", overrides: Mapping[str, Any] | None = None) -> PipelineConfig:
    """Returns the stored config of a run, with overrides laid over it.

    Raises:
        ValueError: There is no such run, or the overrides are not valid.
    """
    stored = PROJECT / root / name / "config.yaml"
    if store := shared_store((overrides or {}).get("store"), root):
        store.fetch_file(stored)
    if not stored.is_file():
        raise ValueError(f"no run {name!r} in {root}: {stored} is missing")
    values = _on_cluster(deep_merge(load_yaml(stored), overrides or {}))
    return PipelineConfig.parse(values, source=f"run {name!r} with flow parameters")


def anchored(config: PipelineConfig) -> PipelineConfig:
    """Returns the config with relative paths made absolute: workers of a stage run in folders of their own.

    A value counts as a path when it names something that exists below the project's folder, as `model.base`
    does for a local base and not for a name on a hub. MLflow's SQLite store and artifact folder are anchored
    in any case, as is the folder of the signing key, which has its place below the root.
    """
    values = _anchor(config.model_dump(mode="json"))
    tracking = values["tracking"]
    if tracking["uri"].startswith("sqlite:///"):
        tracking["uri"] = "sqlite:///" + str(PROJECT / tracking["uri"].removeprefix("sqlite:///"))
    if (location := tracking["artifact_location"]) and "://" not in location:
        tracking["artifact_location"] = str(PROJECT / location)
    provenance = values["batch"]["provenance"]
    provenance["credentials"] = str(PROJECT / (provenance["credentials"] or f"{config.root}/credentials"))
    return PipelineConfig.parse(values, source="the anchored config")


def _anchor(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _anchor(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_anchor(below) for below in value]
    looks_like_path = (
        isinstance(value, str) and ("/" in value or value.endswith(".onnx")) and "://" not in value
    )
    return str(PROJECT / value) if looks_like_path and (PROJECT / value).exists() else value
