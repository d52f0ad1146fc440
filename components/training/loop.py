"""What every training worker runs: build, resume, step, log, save, finish. Started through `worker.py`."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from components.core import derive_seed, pick_device, pick_dtype, seed_everything, write_text_atomic
from components.training.checkpoint import (
    Snapshot,
    TrainState,
    load_checkpoint,
    save_checkpoint,
    scratch_folder,
    seed_step,
)
from components.training.clock import Clock
from components.training.ema import Ema
from components.training.engine import apply_step, start_engine
from components.training.export import export_adapter, full_weights
from components.training.face_identity import load_face_identity
from components.training.feed import make_feed
from components.training.guard import BadLoss, Guard, running_mean
from components.training.job import (
    ADAPTER_FILE,
    BEST_FOLDER,
    OUTCOME_FILE,
    PROGRESS_FILE,
    PROGRESS_S,
    RUN_FILE,
    Job,
)
from components.training.left_out import samples_in
from components.training.prompts import Prompts
from components.training.sampled_face import load_sampled_face
from components.training.similarity import Similarity
from components.training.start import start_mark, take_weights
from components.training.step import TERMS, Objective, StepResult, train_step
from components.training.store import check_store, replace_folder, storing
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
        take_weights(self.adapter, self.config, base)
        if self.config.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()
        model = PhotoVerseModel(base.unet, base.text_encoder, self.adapter)
        self.engine = start_engine(model, self.adapter.trainable_parameters(), self.config, self.dtype)
        if self.config.zero_stage < 3:  # stage 3 cuts weights into flat parts
            # A fifth less time a step on a CPU; only now, because DeepSpeed's start wants plain memory.
            base.unet.to(memory_format=torch.channels_last)
        scaling_factor = vae.config.scaling_factor
        face = load_face_identity(job, vae, self.device, self.dtype)
        sampled = load_sampled_face(job, base.noise_scheduler, face)
        self.objective = Objective(self.config, base.noise_scheduler, scaling_factor, face, sampled)
        prompts = Prompts(base.tokenizer, self.config.prompt, self.adapter.m)
        vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)  # as diffusers' pipelines have it
        timesteps = len(base.noise_scheduler.alphas_cumprod)
        self.feed = make_feed(job, prompts, timesteps, vae_scale_factor, rank, world_size)
        self.watch = Watch(
            job, self.engine, vae, base.noise_scheduler, prompts, self.device, self.dtype, rank, world_size
        )
        self.state, self.ema = TrainState(), self._average(None)
        self.tracker: Tracker | None = None  # on rank 0
        self._told = 0.0  # when the store last heard of the progress

    def _average(self, saved: dict[str, torch.Tensor] | None) -> Ema | None:
        if self.config.ema_decay is None:
            return None
        return Ema(dict(self.adapter.named_parameters()), self.config.ema_decay, saved)

    def resume(self, folder: Path | None) -> None:
        """Takes up a checkpoint; None starts afresh."""
        self._claimed = (self.job.folder / RUN_FILE).is_file()
        if folder is not None:
            self.state, average = load_checkpoint(self.engine, self.adapter, folder)
            self.ema = self._average(average)
            logger.info("resuming %s at step %d", self.job.run_name, self.state.step)
        self._saved = self.state.step
        self.state.in_memory = self.feed.read_as(self.state.in_memory)
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
        self._remember()
        workers, price = self.world_size, self.config.price_per_worker_hour
        self._clock = Clock(
            self.config.global_batch_size, None if price is None else workers * price, self.state.seconds
        )
        while self.state.step < self.config.steps:
            try:
                self._steps(report)
            except BadLoss as bad:
                if not self._go_back(bad):
                    self._stop_with(str(bad), report)
                    return
        self._finish()

    def _steps(self, report: Report) -> None:
        """Steps from where the run is to its end.

        Raises:
            BadLoss: The loss or the gradient is not what training can go on with.
        """
        clock, divergence = self._clock, self.config.divergence
        with closing(self.feed.steps(self.state.step, self.state.position)) as steps:
            while self.state.step < self.config.steps:
                with clock.waiting():
                    inputs = next(steps)
                if self.job.hook is not None:
                    self.job.hook(self.rank, inputs)
                seed_step(self.seed, inputs.step, self.rank)
                guard = Guard(divergence, inputs.keys, inputs.step, self.state.loss_mean)
                factor = divergence.rate_factor**self.state.returns
                result = train_step(
                    self.engine, self.objective, inputs, self.device, self.dtype, factor, guard
                )
                self._check_norm(result, guard)
                if self.ema is not None:
                    self.ema.update(inputs.step)
                self.state.step, self.state.position = inputs.step + 1, inputs.position
                clock.steps += 1
                self._log(result)
                with clock.paused():
                    self._occasionally(report)

    def _check_norm(self, result: StepResult, guard: Guard) -> None:
        """Under ZeRO the norm is known after the step alone; float16 has a scaler that skips such steps."""
        norm = float(result.gradient_norm)
        if self.dtype != torch.float16 and not 0 <= norm < float("inf"):  # DeepSpeed says -1 for no number
            fault = "the gradient norm is no number" if norm < 0 else f"the gradient norm is {norm}"
            raise BadLoss(guard.message(fault), stepped=True)

    def _log(self, result: StepResult) -> None:
        """Adds a step to the sums and writes a row when due."""
        values = dict(zip(TERMS, result.terms.tolist(), strict=True))
        values["gradient_norm"] = float(result.gradient_norm)
        state, step = self.state, self.state.step
        state.loss_mean = running_mean(state.loss_mean, values["loss"], step - 1)
        for name, value in values.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.sums["count"] = state.sums.get("count", 0.0) + 1
        self._show_progress(values["loss"])
        if step % self.config.log_every and step != self.config.steps:
            return
        count = state.sums.pop("count")
        row = {name: total / count for name, total in state.sums.items()}
        state.sums = {}
        figures = self._clock.figures()
        if self.job.left_out:
            figures["left_out_samples"] = samples_in(self.job.manifest, self.job.left_out)
        if self.tracker is not None:
            self.tracker.log(step, row | {"learning_rate": result.learning_rate} | figures)

    def _show_progress(self, loss: float) -> None:
        """Notes the step for the driver, which shows it; no run ends because that cannot be written."""
        if self.rank == 0:
            progress = {"start": self._start, "step": self.state.step, "loss": loss}
            with suppress(OSError):
                path = self.job.folder / PROGRESS_FILE
                path.write_text(json.dumps(progress), encoding="utf-8")
                if self.job.store is not None and time.monotonic() - self._told >= PROGRESS_S:
                    self._told = time.monotonic()
                    self.job.store.send_file(path)

    def _occasionally(self, report: Report) -> None:
        """Validates, draws and saves when the step is due for it; the end of the run has its own turn."""
        step, validation = self.state.step, self.config.validation
        last = step == self.config.steps
        measure = validation.every and step % validation.every == 0 and not last
        draw = validation.sample_every and step % validation.sample_every == 0 and not last
        if measure or draw:
            with nullcontext() if self.ema is None else self.ema.in_place():  # what is saved at the end
                if measure:
                    self.watch.measure("validation", step, self.tracker)
                similarity = self.watch.draw(step, self.tracker) if draw else None
            self._keep_best(similarity)
        if step % self.config.checkpoint_every == 0 or last:
            self._save(report)

    def _keep_best(self, similarity: Similarity | None) -> None:
        """Keeps this state beside the last checkpoints if its pictures keep identities best so far."""
        if similarity is None or (self.state.best is not None and similarity.mean <= self.state.best):
            return
        self.state.best = similarity.mean
        weights = full_weights(self.engine, self.adapter) if self.ema is None else self.ema.whole()
        with scratch_folder() as folder:
            self._fill(folder)
            if self.rank == 0:
                about = self._about() | {"identity_similarity": similarity.mean}
                export_adapter(self.adapter, weights, folder / ADAPTER_FILE, about, self.config.export_dtype)
                with storing("the best checkpoint", self.job.folder):
                    replace_folder(folder, self.job.folder / BEST_FOLDER)
                    self.job.send()

    def _save(self, report: Report) -> None:
        if self.tracker is not None:
            self.tracker.flush()
            if self._claimed:
                check_store(self.job.folder)
        self.state.seconds = self._clock.seconds
        with scratch_folder() as folder:
            self._fill(folder)
            with storing(f"the checkpoint of step {self.state.step}", self.job.folder):
                report(self.state.step, folder if self.rank == 0 else None)
                if self.rank == 0:
                    self.job.send()
        self._saved = self.state.step
        self._remember()

    def _fill(self, folder: Path) -> None:
        """Writes this state to a scratch folder."""
        average = None if self.ema is None else self.ema.average
        with storing("a checkpoint", folder):
            save_checkpoint(self.engine, self.adapter, folder, self.state, average)

    def _remember(self) -> None:
        """Keeps this state in memory, if the run may go back to it."""
        if self.config.divergence.max_returns:
            average = None if self.ema is None else self.ema.average
            self._snapshot = Snapshot.take(self.engine, self.adapter, self.state, average)

    def _go_back(self, fault: BadLoss) -> bool:
        """Returns to the last checkpoint with a lower rate; False if the run may not, or not again."""
        returns = self.state.returns + 1
        if returns > self.config.divergence.max_returns:
            return False
        if not fault.stepped:
            apply_step(self.engine, 0.0)  # DeepSpeed lets go of the gradients; the weights are replaced
        self._snapshot.put_back(self.engine, self.adapter)
        self.state = self._snapshot.state.copy()
        self.state.returns = returns
        self.ema = self._average(self._snapshot.ema)
        if self.tracker is not None:
            self.tracker.cut(self.state.step)
        rate = self.config.divergence.rate_factor**returns
        logger.warning("%s; going back to step %d with %g of the rate", fault, self.state.step, rate)
        self._remember()  # a second return comes to the same step, with a rate that is lower still
        return True

    def _finish(self) -> None:
        """Measures and draws on people not trained on, and writes adapter and outcome."""
        if self.ema is not None:
            self.ema.apply()
        gain = self.watch.measure("heldout", self.state.step, self.tracker)
        similarity = self.watch.draw(self.state.step, self.tracker)
        weights = full_weights(self.engine, self.adapter) if self.ema is None else self.ema.whole()
        if self.tracker is None:
            return
        path = self.job.folder / ADAPTER_FILE
        with storing("the adapter", self.job.folder):
            export_adapter(self.adapter, weights, path, self._about(), self.config.export_dtype)
        self.tracker.log_file(path, "adapter")
        self.tracker.log_file(path.with_suffix(".json"), "adapter")
        self.tracker.flush()
        outcome = {"step": self.state.step} | gain.plain()
        if similarity is not None:
            outcome |= {"identity_similarity": similarity.mean, "best_identity_similarity": self.state.best}
        if self.job.left_out:
            outcome["left_out_samples"] = samples_in(self.job.manifest, self.job.left_out)
        with storing("the outcome", self.job.folder):
            write_text_atomic(self.job.folder / OUTCOME_FILE, json.dumps(outcome, indent=2))
            self.job.send()

    def _about(self) -> dict[str, Any]:
        """What an adapter's file says of the run that it comes from."""
        face = self.job.face.model_dump(mode="json")  # photos must be cut the same way later
        run = {"run_name": self.job.run_name, "step": self.state.step, "mlflow_run_id": self.job.run_id}
        if self.config.start_from is not None:
            run["started_from"] = start_mark(self.config)
        return run | {"face": face}

    def _stop_with(self, fault: str, report: Report) -> None:
        """Ends the run with an error that a restart would only repeat, and keeps the last good state."""
        weights = full_weights(self.engine, self.adapter)
        good = all(bool(value.isfinite().all()) for value in weights.values())
        if good and self.state.step > self._saved:
            self._save(report)
        kept = self.state.step if good else self._saved
        message = f"{fault}; the weights of step {kept} are the last good ones" + (
            " and kept" if kept else ""
        )
        logger.error("%s", message)
        if self.rank == 0:
            with storing("the outcome", self.job.folder):
                write_text_atomic(self.job.folder / OUTCOME_FILE, json.dumps({"error": message}))
                self.job.send()
