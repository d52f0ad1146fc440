"""What every training worker runs: build, resume, step, log, save, finish. Started by `launch.py`."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from components.core import (
    derive_seed,
    pick_device,
    pick_dtype,
    seed_everything,
    setup_logging,
    write_text_atomic,
)
from components.training.checkpoint import (
    TrainState,
    last_whole,
    load_checkpoint,
    save_checkpoint,
    scratch_folder,
    seed_step,
)
from components.training.clock import Clock
from components.training.ema import Ema
from components.training.engine import start_engine
from components.training.export import export_adapter, full_weights
from components.training.feed import FIELDS, Feed, make_prompts
from components.training.job import ADAPTER_FILE, OUTCOME_FILE, PROGRESS_FILE, Job
from components.training.step import TERMS, FaceIdentity, Objective, StepResult, train_step
from components.training.tracking import Tracker
from components.training.watch import Watch

logger = logging.getLogger(__name__)
Report = Callable[[int, Path | None], None]


class Worker:
    """One rank of a run.

    Args:
        job: What to do.
        rank: This rank.
        world_size: Number of ranks; the process group exists already.
    """

    def __init__(self, job: Job, rank: int, world_size: int) -> None:
        from components.model import PhotoVerseAdapter, PhotoVerseModel, load_base

        self.job, self.rank, self.world_size = job, rank, world_size
        self.config, self.seed = job.config, job.runtime.seed
        self.device = pick_device(job.runtime.device)
        self.dtype = pick_dtype(self.device, job.runtime.dtype)
        base = load_base(job.model, self.device, self.dtype)
        vae = base.vae.requires_grad_(False).eval()
        seed_everything(derive_seed(self.seed, "adapter"))  # the same start on every rank
        self.adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, job.model)
        if self.config.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()
        model = PhotoVerseModel(base.unet, base.text_encoder, self.adapter)
        self.engine = start_engine(model, self.adapter.trainable_parameters(), self.config, self.dtype)
        if self.config.zero_stage < 3:  # stage 3 cuts weights into flat parts
            # A fifth less time a step on a CPU; only now, because DeepSpeed's start wants plain memory.
            base.unet.to(memory_format=torch.channels_last)
        scaling_factor = vae.config.scaling_factor
        self.objective = Objective(
            self.config, base.noise_scheduler, scaling_factor, face_identity(job, vae, self.device)
        )
        prompts = make_prompts(base.tokenizer, self.config.prompt, self.adapter.m)
        self.feed = make_feed(job, prompts, len(base.noise_scheduler.alphas_cumprod), rank, world_size)
        self.watch = Watch(
            job, self.engine, vae, base.noise_scheduler, prompts, self.device, self.dtype, rank, world_size
        )
        self.state, self.ema = TrainState(), self._average(None)
        self.tracker: Tracker | None = None  # on rank 0

    def _average(self, saved: dict[str, torch.Tensor] | None) -> Ema | None:
        if self.config.ema_decay is None:
            return None
        return Ema(dict(self.adapter.named_parameters()), self.config.ema_decay, saved)

    def resume(self, folder: Path | None) -> None:
        """Takes up a checkpoint; None starts afresh."""
        if folder is not None:
            self.state, average = load_checkpoint(self.engine, self.adapter, folder)
            self.ema = self._average(average)
            logger.info("resuming %s at step %d", self.job.run_name, self.state.step)
        if self.rank == 0:
            self.tracker = Tracker(self.job.folder, self.state.step, self.job.tracking, self.job.run_id)

    def run(self, report: Report) -> None:
        """Trains to the end.

        Args:
            report: Called as report(step, folder) on all ranks; the folder is rank 0's checkpoint, None else.
        """
        self.engine.train()
        self._start = self.state.step
        self._show_progress(0.0)
        clock = Clock(self.config.global_batch_size)
        steps = self.feed.steps(self.state.step)
        while self.state.step < self.config.steps:
            with clock.waiting():
                inputs = next(steps)
            if self.job.hook is not None:
                self.job.hook(self.rank, inputs.step)
            seed_step(self.seed, inputs.step, self.rank)
            result = train_step(self.engine, self.objective, inputs, self.device, self.dtype)
            if self.ema is not None:
                self.ema.update(inputs.step)
            self.state.step = inputs.step + 1
            clock.steps += 1
            if not self._log(result, clock, inputs.keys):
                return
            with clock.paused():
                self._occasionally(report)
        steps.close()
        self._finish()

    def _log(self, result: StepResult, clock: Clock, keys: tuple[str, ...]) -> bool:
        """Adds a step to the sums and writes a row when due; False if the run has to stop."""
        values = dict(zip(TERMS, result.terms.tolist(), strict=True))
        values["gradient_norm"] = float(result.gradient_norm)
        step, sums = self.state.step, self.state.sums
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        sums["count"] = sums.get("count", 0.0) + 1
        if not math.isfinite(values["loss"]):
            self._stop_with(f"the loss is {values['loss']} at step {step}; rank 0 had {', '.join(keys)}")
            return False
        self._show_progress(values["loss"])
        if step % self.config.log_every and step != self.config.steps:
            return True
        count, self.state.sums = sums.pop("count"), {}
        row = {name: total / count for name, total in sums.items()}
        figures = clock.figures()
        if self.tracker is not None:
            self.tracker.log(step, row | {"learning_rate": result.learning_rate} | figures)
        return True

    def _show_progress(self, loss: float) -> None:
        """Notes the step for the driver, which shows it."""
        if self.rank == 0:
            progress = {"start": self._start, "step": self.state.step, "loss": loss}
            write_text_atomic(self.job.folder / PROGRESS_FILE, json.dumps(progress))

    def _occasionally(self, report: Report) -> None:
        """Saves, validates and draws when the step is due for it; the end of the run has its own turn."""
        step, validation = self.state.step, self.config.validation
        last = step == self.config.steps
        if step % self.config.checkpoint_every == 0 or last:
            self._save(report)
        if validation.every and step % validation.every == 0 and not last:
            self.watch.measure("validation", step, self.tracker)
        if validation.sample_every and step % validation.sample_every == 0 and not last:
            self.watch.draw(step, self.tracker)

    def _save(self, report: Report) -> None:
        if self.tracker is not None:
            self.tracker.flush()
        with scratch_folder() as folder:
            average = None if self.ema is None else self.ema.average
            save_checkpoint(self.engine, self.adapter, folder, self.state, average)
            report(self.state.step, folder if self.rank == 0 else None)

    def _finish(self) -> None:
        """Measures and draws on held-out people, and writes adapter and outcome."""
        if self.ema is not None:
            self.ema.apply()
        gain = self.watch.measure("heldout", self.state.step, self.tracker)
        self.watch.draw(self.state.step, self.tracker)
        weights = full_weights(self.engine, self.adapter) if self.ema is None else self.ema.whole()
        if self.tracker is None:
            return
        path = self.job.folder / ADAPTER_FILE
        about = {"run_name": self.job.run_name, "step": self.state.step, "mlflow_run_id": self.job.run_id}
        about["face"] = self.job.face.model_dump(mode="json")  # photos must be cut the same way later
        export_adapter(self.adapter, weights, path, about)
        self.tracker.log_file(path, "adapter")
        self.tracker.log_file(path.with_suffix(".json"), "adapter")
        self.tracker.flush()
        outcome = {"step": self.state.step} | gain.plain()
        write_text_atomic(self.job.folder / OUTCOME_FILE, json.dumps(outcome, indent=2))

    def _stop_with(self, message: str) -> None:
        """Ends the run with an error that a restart would only repeat: the driver raises it."""
        logger.error("%s", message)
        if self.rank == 0:
            write_text_atomic(self.job.folder / OUTCOME_FILE, json.dumps({"error": message}))


def face_identity(job: Job, vae: Any, device: torch.device) -> FaceIdentity | None:
    """Loads what the identity loss looks through; None if the term is off."""
    from components.face import identity_onnx_path, load_arcface

    if job.config.face_loss.lambda_face == 0:
        return None
    base = Path(job.model.base)
    path = identity_onnx_path(job.face, base if base.is_dir() else None)
    return FaceIdentity(vae, load_arcface(path).to(device))


def make_feed(job: Job, prompts: Any, num_train_timesteps: int, rank: int, world_size: int) -> Feed:
    """Opens the training split for this rank."""
    from components.shards import ShardReader

    reader = ShardReader(
        job.manifest,
        "train",
        batch_size=job.config.global_batch_size,
        seed=job.runtime.seed,
        rank=rank,
        world_size=world_size,
        fields=FIELDS,
    )
    return Feed(
        reader,
        job.config,
        seed=job.runtime.seed,
        num_train_timesteps=num_train_timesteps,
        prompts=prompts,
        rank=rank,
        world_size=world_size,
    )


def run_worker(values: dict[str, Any]) -> None:
    """The per-worker function that Ray Train calls; `values["job"]` is the `Job`."""
    import ray.train

    job: Job = values["job"]
    quiet_libraries()
    torch.set_num_threads(job.config.cpus_per_worker)
    context = ray.train.get_context()
    worker = Worker(job, context.get_world_rank(), context.get_world_size())
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        worker.resume(None)
    else:
        with checkpoint.as_directory() as folder:
            worker.resume(last_whole(Path(folder)))
    worker.run(report_checkpoint)


def quiet_libraries() -> None:
    """Leaves our own log, and warnings of the libraries."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    setup_logging(level=logging.WARNING)
    logging.getLogger("components").setLevel(logging.INFO)
    logging.getLogger("ray").setLevel(logging.WARNING)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def report_checkpoint(step: int, folder: Path | None) -> None:
    """Hands a checkpoint to Ray, which copies it to the run's storage; a barrier over all ranks."""
    import ray.train

    checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(str(folder))
    ray.train.report({"step": step}, checkpoint=checkpoint)
