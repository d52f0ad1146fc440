"""One tiny base, shards that fit it, and a process group of one: whole runs in this process, without Ray."""

import shutil
from pathlib import Path

import pytest
import torch

from components.core import RuntimeConfig, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training.config import TrainConfig
from components.training.job import Job
from components.training.loop import Worker
from tests.factories import tiny_base
from tests.unit.training.made_shards import made_shards


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("training-base") / "base")


@pytest.fixture(scope="session")
def manifest(base, tmp_path_factory):
    return made_shards(tmp_path_factory.mktemp("training-shards"), base)


@pytest.fixture(scope="session")
def process_group(tmp_path_factory):
    store = tmp_path_factory.mktemp("gloo") / "store"
    patch = pytest.MonkeyPatch()
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        patch.setenv(name, value)  # as Ray Train sets them for a worker
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    patch.undo()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def make_job_in(base, manifest):
    def make(path: Path, seed=0, hook=None, shards=None, **settings) -> Job:
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
            manifest=shards or manifest,
            folder=path,
            run_name="test",
            hook=hook,
        )

    return make


@pytest.fixture
def make_job(make_job_in, tmp_path):
    return lambda folder="run", **settings: make_job_in(tmp_path / folder, **settings)


@pytest.fixture(scope="session")
def run(process_group):
    """Runs a job in this process, afresh or from a checkpoint; returns the worker and its checkpoints."""

    def go(job: Job, resume_from: Path | None = None) -> tuple[Worker, dict[int, Path]]:
        kept: dict[int, Path] = {}

        def keep(step: int, folder: Path) -> None:
            kept[step] = job.folder / f"kept-{step}"
            shutil.copytree(folder, kept[step], dirs_exist_ok=True)

        worker = Worker(job, 0, 1)
        worker.resume(resume_from)
        worker.run(keep)
        return worker, kept

    return go


@pytest.fixture(scope="session")
def finished(make_job_in, run, tmp_path_factory):
    """A run of six steps with these tests' defaults: (job, worker, checkpoints). Read it only."""
    job = make_job_in(tmp_path_factory.mktemp("finished") / "run")
    return job, *run(job)
