"""Whole training runs in the calling process, without Ray: a process group of one, a job, a worker."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from components.core import RuntimeConfig, ShardManifest, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training.config import TrainConfig
from components.training.job import Job
from components.training.loop import Worker


def join_alone() -> None:
    """Makes this process a group of one, once; it lasts as long as the process."""
    if not torch.distributed.is_initialized():
        store = Path(tempfile.mkdtemp(prefix="photoverse-test-gloo-")) / "store"
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


@contextmanager
def alone_in_environment() -> Iterator[None]:
    """Variables that Ray Train sets for a worker, and that DeepSpeed wants to see."""
    names = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def made_job(path: Path, base: Path, manifest: ShardManifest, *, seed=0, hook=None, **settings) -> Job:
    """A job in `path`; settings are laid over small defaults."""
    path.mkdir(parents=True, exist_ok=True)
    defaults = {
        "steps": 6,
        "global_batch_size": 8,
        "log_every": 1,
        "checkpoint_every": 3,
        "face_loss": {"fraction": 0.25, "max_timestep": 0.5},
        "validation": {"timesteps": 2, "sample_people": 2, "sample_steps": 2},
    }
    return Job(
        config=TrainConfig.parse(defaults | settings, source="a test"),
        model=ModelConfig(base=str(base)),
        face=FaceConfig(),
        runtime=RuntimeConfig(device="cpu", seed=seed),
        tracking=TrackingConfig(),
        manifest=manifest,
        folder=path,
        run_name="test",
        hook=hook,
    )


def made_worker(job: Job) -> Worker:
    """A worker of one, built and ready."""
    join_alone()
    with alone_in_environment():
        return Worker(job, 0, 1)


def run_alone(job: Job, resume_from: Path | None = None) -> tuple[Worker, dict[int, Path]]:
    """Runs a job afresh or from a checkpoint; returns the worker and its checkpoints by step."""
    kept: dict[int, Path] = {}

    def keep(step: int, folder: Path | None) -> None:
        assert folder is not None
        kept[step] = job.folder / f"kept-{step}"
        shutil.copytree(folder, kept[step], dirs_exist_ok=True)

    worker = made_worker(job)
    with alone_in_environment():
        worker.resume(resume_from)
        worker.run(keep)
    return worker, kept
