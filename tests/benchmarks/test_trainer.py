"""What Ray and DeepSpeed cost a step, what cached features save, what data and the identity loss take.

All at the sizes of the portrait base, with untrained weights: speed does not depend on them.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.core import RuntimeConfig, ShardManifest
from components.model import FeatureExtractor, load_extractor, load_vae
from components.shards import load_split
from components.training.engine import make_optimizer
from components.training.feed import MicroBatch
from components.training.loop import Worker
from components.training.step import train_step
from components.training.tracking import read_history
from tests.unit.training.made_runs import made_job, made_worker, run_alone
from tests.unit.training.made_shards import made_shards

BLOCK = 5  # steps in one timed call
SETTINGS: dict[str, Any] = {
    "steps": 10_000,
    "global_batch_size": 16,
    "checkpoint_every": 10_000,
    "log_every": 10,
    "face_loss": {"lambda_face": 0.0},
}


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardManifest]:
    from components.portraits.architecture import create_base
    from components.portraits.config import BaseArchitecture

    folder = tmp_path_factory.mktemp("trainer")
    create_base(folder / "base", BaseArchitecture())
    return folder / "base", made_shards(
        folder / "shards", folder / "base", splits={"train": 32, "heldout": 4}
    )


def steps_of(worker: Worker) -> Iterator[None]:
    """Trains a step at each turn, as the loop does."""
    worker.engine.train()
    for inputs in worker.feed.steps(0):
        train_step(worker.engine, worker.objective, inputs, worker.device, worker.dtype)
        yield


class Bare:
    """The same step in plain PyTorch: the model, the objective, `backward`, clipping, AdamW."""

    def __init__(self, worker: Worker) -> None:
        model = worker.engine.module
        self._model, self._objective = model, worker.objective
        self._feed = worker.feed.steps(0)
        self._optimizer = make_optimizer(model.trainable_parameters(), worker.config.optimizer)

    def step(self) -> None:
        (batch,) = next(self._feed).micro_batches
        terms = self._objective(self._model, batch.to(torch.device("cpu"), torch.float32))
        terms[0].backward()
        torch.nn.utils.clip_grad_norm_(self._model.trainable_parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class Gate:
    """Lets a training run in another process do a block of steps at a time.

    The hook travels to the worker and waits there, before the first step of each block, for the bench's word.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._block = folder, -1

    def hook(self) -> Any:
        folder, block_size = self._folder, BLOCK

        def wait(rank: int, step: int) -> None:
            if step % block_size:
                return
            block = step // block_size
            (folder / f"done-{block - 1}").touch()
            while not (folder / f"go-{block}").exists():
                time.sleep(0.001)

        return wait

    def run_block(self) -> None:
        self._block += 1
        (self._folder / f"go-{self._block}").touch()
        self.wait_for(self._block)

    def wait_for(self, block: int) -> None:
        while not (self._folder / f"done-{block}").exists():
            time.sleep(0.001)


def test_trainer_over_bare(portrait, ratio, tmp_path):
    """Ray Train and DeepSpeed around a step, against the bare step; one worker, steady state."""
    from components.core import ray_session
    from components.training.launch import launch

    base, manifest = portrait
    gate = Gate(tmp_path)
    blocks = 7
    settings = SETTINGS | {"steps": (blocks + 1) * BLOCK, "validation": {"timesteps": 1, "sample_people": 0}}
    job = made_job(tmp_path / "run", base, manifest, hook=gate.hook(), **settings)
    bare = Bare(made_worker(made_job(tmp_path / "bare", base, manifest, **SETTINGS)))

    def bare_block() -> None:
        for _ in range(BLOCK):
            bare.step()

    with ray_session(RuntimeConfig(num_cpus=2)):
        thread = threading.Thread(target=launch, args=(replace(job, runtime=RuntimeConfig(device="cpu")),))
        thread.start()
        gate.wait_for(-1)
        value = ratio(
            "trainer_over_bare", gate.run_block, bare_block, runs=blocks - 1, against="a bare PyTorch loop"
        )
        gate.run_block()
        thread.join()
    assert value <= 1.05


def encoded(
    batch: MicroBatch, samples: list[dict[str, Any]], extractor: FeatureExtractor, vae: Any
) -> MicroBatch:
    """The same batch with features and latents made from its photos, as public training scripts make them."""
    photos = np.stack([sample["photo.png"] for sample in samples])
    targets = torch.from_numpy(np.stack([sample["target.png"] for sample in samples])).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = extractor(extractor.preprocess(photos))
        posterior = vae.encode(targets.float() / 127.5 - 1).latent_dist
    return replace(batch, features=features, moments=torch.cat([posterior.mean, posterior.std], dim=1))


def test_cached_over_encoding(portrait, ratio, tmp_path):
    """Samples a second with cached features and latents, over those when every step runs CLIP and the VAE."""
    base, manifest = portrait
    job = made_job(tmp_path / "run", base, manifest, **SETTINGS)
    worker = made_worker(job)
    extractor, vae = load_extractor(job.model), load_vae(job.model)
    photos = {
        sample["__key__"]: sample for sample in load_split(manifest, "train", ("photo.png", "target.png"))
    }
    steps = worker.feed.steps(0)
    worker.engine.train()

    def cached() -> None:
        for _ in range(BLOCK):
            train_step(worker.engine, worker.objective, next(steps), worker.device, worker.dtype)

    def encoding() -> None:
        for _ in range(BLOCK):
            inputs = next(steps)
            samples = [photos[key] for key in inputs.keys]
            batch = encoded(inputs.micro_batches[0], samples, extractor, vae)
            inputs = replace(inputs, micro_batches=(batch,))
            train_step(worker.engine, worker.objective, inputs, worker.device, worker.dtype)

    # times of equal work: their ratio is the ratio of samples a second
    ratio("cached_over_encoding", encoding, cached, against="cached features and latents")


def test_data_wait_share(portrait, bench_results, tmp_path):
    """Share of a step that is a wait for data, from the run's own log."""
    base, manifest = portrait
    settings = SETTINGS | {"steps": 28, "log_every": 4, "validation": {"timesteps": 1, "sample_people": 0}}
    job = made_job(tmp_path / "run", base, manifest, **settings)
    run_alone(job)
    rows = [row for row in read_history(job.folder) if "data_wait_share" in row][
        1:
    ]  # the first reads the shards
    shares = [row["data_wait_share"] for row in rows]
    bench_results["data_wait_share"] = {
        "value": round(statistics.median(shares), 5),
        "reference": "the whole step",
        "runs": len(shares),
        "low": round(min(shares), 5),
        "high": round(max(shares), 5),
    }
    assert statistics.median(shares) < 0.03


@pytest.mark.parametrize("fraction", [0.0625, 0.25])
def test_face_loss_cost(portrait, ratio, tmp_path, fraction):
    """A step with the identity loss on a share of the batch, against a step without."""
    base, manifest = portrait
    face = {"fraction": fraction, "max_timestep": 1.0}
    with_loss, without = (
        steps_of(made_worker(made_job(tmp_path / name, base, manifest, **SETTINGS | extra)))
        for name, extra in (("with", {"face_loss": face}), ("without", {}))
    )

    def block(steps: Iterator[None]) -> None:
        for _ in range(BLOCK):
            next(steps)

    name = f"face_loss_{fraction:g}_of_batch_over_none"
    ratio(name, lambda: block(with_loss), lambda: block(without), against="a step without the identity loss")
