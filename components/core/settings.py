"""Settings that several rooms share: where to compute, where to keep the record of runs."""

from typing import Literal

from pydantic import Field

from components.core.config import StrictConfig


class RuntimeConfig(StrictConfig):
    """Where a stage computes.

    Attributes:
        device: "auto" takes CUDA where there is one.
        dtype: "auto" is float32 on the CPU, bfloat16 or float16 on a GPU.
        ray_address: "local" starts a Ray of the stage's own; "auto" joins the cluster that the stage runs in.
        num_cpus: CPUs that a local Ray may use; None takes all.
        seed: Root of every random stream of the run.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    ray_address: str = "local"
    num_cpus: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)


class TrackingConfig(StrictConfig):
    """The MLflow server or database that runs and models are kept in.

    Attributes:
        uri: Tracking and registry URI: `http(s)://...` of a server or `sqlite:///path` on a laptop.
        experiment: Name of the experiment.
        artifact_location: Where a new experiment keeps its artifacts; None leaves it to the server.
    """

    uri: str = "sqlite:///runs/mlflow/mlflow.db"
    experiment: str = "photoverse"
    artifact_location: str | None = "runs/mlflow/artifacts"
