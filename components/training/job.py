"""What a worker is told, and the names of the files in a run's folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import RuntimeConfig, ShardManifest, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training.config import TrainConfig

RUN_FILE = "run.json"  # the settings that the folder belongs to
PROGRESS_FILE = "progress.json"  # the step that rank 0 has done
OUTCOME_FILE = "outcome.json"  # what rank 0 says at the end
ADAPTER_FILE = "adapter.safetensors"
CHECKPOINTS_FOLDER = "checkpoints"
BEST_FOLDER = "best"  # the checkpoint whose pictures kept identities best, and its adapter
LEFT_OUT_FILE = "left_out.json"  # damaged shards that the run goes on without


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
        folder: The run's own folder, reachable from every worker.
        run_name: Its name.
        run_id: Of the MLflow run; None keeps the record in the folder alone.
        left_out: Names of damaged shards that the run goes on without.
        resume_from: Checkpoint to take up where Ray knows of none.
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
    hook: Callable[[int, Any], None] | None = None
