"""`photoverse manifests`: fills the templates of infra/kubernetes with the values of one file.

What comes out is plain YAML for `kubectl apply`. Nothing here talks to a cluster.
"""

from importlib import metadata
from pathlib import Path
from typing import Any, Self

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field, model_validator

from components.core import StrictConfig, load_yaml, write_text_atomic
from flows.environment import PROJECT

FOLDER = PROJECT / "infra" / "kubernetes"
TEMPLATES = ("ray-cluster.yaml", "ray-job.yaml", "prefect-worker.yaml", "work-pool.json")
"""What is made; `cluster.yaml.j2` is part of two of them."""

NAME = r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?"


class NodeValues(StrictConfig):
    """Size of a pod.

    Attributes:
        cpu: Cores.
        memory_gib: GiB.
    """

    cpu: int = Field(ge=1, le=512)
    memory_gib: int = Field(ge=1, le=8192)


class GroupValues(NodeValues):
    """A group of workers that the autoscaler grows and shrinks.

    Attributes:
        min_replicas: Workers that stay when idle.
        max_replicas: Workers at most.
        spot: On machines that may be taken away; nodes carry the label and taint `photoverse/spot`.
    """

    min_replicas: int = Field(default=0, ge=0)
    max_replicas: int = Field(ge=1, le=1000)
    spot: bool = False


class GpuGroupValues(GroupValues):
    """A group of workers with GPUs.

    Attributes:
        gpus: GPUs of one worker's pod.
        gpu_model: Value of the node label `nvidia.com/gpu.product`.
    """

    gpus: int = Field(ge=1, le=16)
    gpu_model: str


class RunValues(StrictConfig):
    """The run of the RayJob.

    Attributes:
        name: Name of the run; a part of the job's name, so lower-case letters, digits and '-'.
        profile: Profile in infra/profiles.
        settings: Settings over the profile's, `key.key=value`, without spaces.
        deadline_s: Seconds after which the job is ended.
    """

    name: str = Field(pattern=f"^{NAME}$")
    profile: str
    settings: tuple[str, ...] = ()
    deadline_s: int = Field(default=259_200, ge=60)


class ClusterValues(StrictConfig):
    """All that differs between clusters.

    Attributes:
        namespace: Where everything is made.
        image_cpu: Image of head, preparation and flows.
        image_cuda: Image of training.
        secret: Secret with the addresses and passwords of store, MLflow and Prefect.
        runs_claim: Claim of a volume that every node can write; None where there is a store.
        store: URL of the store that pods share in the place of a volume.
        head: The head's pod.
        prepare: The CPU group.
        train: The GPU group.
        idle_timeout_s: Seconds until an idle worker is given back.
        run: What the RayJob trains.
    """

    namespace: str = Field(pattern=f"^{NAME}$")
    image_cpu: str
    image_cuda: str
    secret: str = Field(pattern=f"^{NAME}$")
    runs_claim: str | None = Field(default=None, pattern=f"^{NAME}$")
    store: str | None = Field(default=None, pattern=r"^[a-z0-9]+://[\w./-]+$")
    head: NodeValues
    prepare: GroupValues
    train: GpuGroupValues
    idle_timeout_s: int = Field(default=300, ge=10)
    run: RunValues

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.runs_claim is None) == (self.store is None):
            raise ValueError("runs are kept on one thing that pods share: set runs_claim or store, not both")
        return self


def render(values: ClusterValues) -> dict[str, str]:
    """Returns file name -> text of every manifest.

    Raises:
        ValueError: A setting of the run would fall apart in the job's command.
    """
    for setting in values.run.settings:
        if "=" not in setting or set(setting) & set(" \t\n\"'$`;&|<>\\"):
            raise ValueError(
                f"run.settings: {setting!r} must be key=value without spaces, quotes or shell signs"
            )
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    known: dict[str, Any] = values.model_dump(mode="json") | {"ray_version": metadata.version("ray")}
    return {name: environment.get_template(f"{name}.j2").render(known) for name in TEMPLATES}


def documents(text: str) -> list[dict[str, Any]]:
    """Returns the objects of one manifest."""
    return [document for document in yaml.safe_load_all(text) if document]


def write_manifests(values_file: Path, out: Path) -> list[Path]:
    """Writes every manifest below `out`; returns the files."""
    values = ClusterValues.parse(load_yaml(values_file), source=str(values_file))
    written = []
    for name, text in render(values).items():
        write_text_atomic(out / name, text)
        written.append(out / name)
    return written
