"""What a worker is told, and the names of the files in a run's folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import RuntimeConfig, ShardManifest, SharedStore, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training.config import TrainConfig

RUN_FILE = "run.json"  # the settings that the folder belongs to
PROGRESS_FILE = "progress.json"  # the step that rank 0 has done
PROGRESS_S = 2.0  # seconds between two words of it to the store, where nodes share one
OUTCOME_FILE = "outcome.json"  # what rank 0 says at the end
ADAPTER_FILE = "adapter.safetensors"
CHECKPOINTS_FOLDER = "checkpoints"
BEST_FOLDER = "best"  # the checkpoint whose pictures kept identities best, and its adapter
LEFT_OUT_FILE = "left_out.json"  # damaged shards that the run goes on without
NOT_SENT = (CHECKPOINTS_FOLDER, PROGRESS_FILE)  # of the folder, where nodes share a store: they have own ways


@dataclass(frozen=True)
class Job:
    """One run; every path in it is absolute, because workers have a working directory of their own.

    Attributes:
        config: Training settings.
        model: Base and adapter.
        face: Where the identity network is found.
        runtime: Device, dtype, seed.
        tracking: MLflow.
        manifest: The shards.
        folder: The run's own folder, reachable from every worker unless there is a store.
        run_name: Its name.
        run_id: Of the MLflow run; None keeps the record in the folder alone.
        left_out: Names of damaged shards that the run goes on without.
        resume_from: Checkpoint to take up where Ray knows of none that is newer.
        store: What the nodes share where they do not share the folder; None where they do.
        hook: Called as hook(rank, inputs) before each step; tests kill workers with it.
    """

    config: TrainConfig
    model: ModelConfig
    face: FaceConfig
    runtime: RuntimeConfig
    tracking: TrackingConfig
    manifest: ShardManifest
    folder: Path
    run_name: str
    run_id: str | None = None
    left_out: frozenset[str] = frozenset()
    resume_from: Path | None = None
    store: SharedStore | None = None
    hook: Callable[[int, Any], None] | None = None

    @property
    def checkpoints(self) -> str:
        """Path or URL of the checkpoints of Ray."""
        path = self.folder / CHECKPOINTS_FOLDER
        return str(path) if self.store is None else self.store.url_of(path)

    def send(self) -> None:
        """Puts the run's folder into the store; does nothing where the folder itself is shared."""
        if self.store is not None:
            self.store.send(self.folder, leave=NOT_SENT)

    def fetch(self) -> None:
        """Brings the run's folder from the store; does nothing where the folder itself is shared."""
        if self.store is not None:
            self.store.fetch(self.folder, leave=NOT_SENT)
