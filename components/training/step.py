"""One training step: prediction, the losses averaged over the global batch, backward, optimizer step.

Averages: every term is a mean over the samples of the *global* batch (the identity term over those that
    take part in it), whatever the number of workers and accumulation steps. DeepSpeed averages gradients
    over workers and accumulation steps, so the loss that it gets is the local sum times both numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.training.batch import MicroBatch, StepInputs
from components.training.config import TrainConfig
from components.training.engine import apply_step, known_gradient_norm, learning_rate
from components.training.face_identity import FaceIdentity, check_width
from components.training.losses import (
    eq2_diffusion_loss,
    eq5_text_regularizer,
    eq6_visual_regularizer,
    eq7_face_loss,
    eq8_total_loss,
    min_snr_weights,
)
from components.training.objective import (
    ddim_step,
    estimate_x0,
    prediction_target,
    sample_latents,
    signal_to_noise,
)
from components.training.sampled_face import SampledFace

TERMS = ("loss", "diffusion", "face", "text_regularizer", "visual_regularizer", "sampled_face")


class Objective:
    """The training objective over a micro batch (PhotoVerse Eq. 8).

    Args:
        config: The run.
        noise_scheduler: The base's schedule and prediction type.
        scaling_factor: `vae.config.scaling_factor`.
        face: None if the identity term is off.
        sampled: None if the identity of sampled pictures is no term.
    """

    def __init__(
        self, config: TrainConfig, noise_scheduler: Any, scaling_factor: float, face: FaceIdentity | None,
        sampled: SampledFace | None = None,
    ) -> None:  # fmt: skip
        self.config, self.noise_scheduler, self.scaling_factor = config, noise_scheduler, scaling_factor
        self.face, self.sampled = face, sampled

    def __call__(self, model: Any, batch: MicroBatch) -> Tensor:
        """Returns the terms (6,), ordered as `TERMS`: this micro batch's share of the global means."""
        config = self.config
        latents = sample_latents(batch.moments, batch.posterior_noise, self.scaling_factor)
        noisy_latents = self.noise_scheduler.add_noise(latents, batch.noise, batch.timesteps)
        prediction = self._predict(model, noisy_latents, batch.timesteps, batch, slice(None))
        target = prediction_target(self.noise_scheduler, latents, batch.noise, batch.timesteps)
        diffusion = self._weights(batch.timesteps) * eq2_diffusion_loss(
            prediction.noise_pred, target, batch.place_weight
        )
        share = 1 / config.global_batch_size
        diffusion = diffusion.sum() * share
        text = eq5_text_regularizer(prediction.p_f).sum() * share
        visual = eq6_visual_regularizer(prediction.visual_values).sum() * share
        face = self._face_term(model, prediction.noise_pred, noisy_latents, batch)
        weights = config.face_loss.lambda_face, config.losses.lambda_text, config.losses.lambda_visual
        sampled = self._sampled_term(model, batch)
        total = eq8_total_loss(diffusion, face, text, visual, *weights)
        total = total + config.sampled_face.lambda_sampled * sampled
        return torch.stack([total, diffusion, face, text, visual, sampled])

    def _predict(self, model: Any, noisy: Tensor, timesteps: Tensor, batch: MicroBatch, rows: Any) -> Any:
        """The model's prediction for some rows of the batch."""
        return model(
            noisy, timesteps, batch.input_ids[rows], batch.word_positions[rows], batch.features[rows],
            batch.gamma[rows], batch.sigma[rows], self.config.alpha,
        )  # fmt: skip

    def _weights(self, timesteps: Tensor) -> Tensor:
        gamma = self.config.losses.min_snr_gamma
        if gamma is None:
            return torch.ones((), device=timesteps.device)
        snr = signal_to_noise(self.noise_scheduler, timesteps)
        return min_snr_weights(snr, gamma, self.noise_scheduler.config.prediction_type)

    def _face_term(self, model: Any, prediction: Tensor, noisy_latents: Tensor, batch: MicroBatch) -> Tensor:
        rows = batch.face_rows
        if self.face is None or not len(rows):
            return torch.zeros((), device=prediction.device)
        x0 = self._estimate_x0(model, prediction[rows], noisy_latents[rows], batch)
        embedding = self.face(x0, batch.landmarks_xy)
        check_width(batch.identity, embedding)
        return eq7_face_loss(batch.identity, embedding).sum() * batch.face_share

    def _sampled_term(self, model: Any, batch: MicroBatch) -> Tensor:
        if self.sampled is None or batch.from_noise is None:
            return torch.zeros((), device=batch.noise.device)
        return self.sampled(model, batch.from_noise).sum() * batch.from_noise.share

    def _estimate_x0(self, model: Any, prediction: Tensor, noisy: Tensor, batch: MicroBatch) -> Tensor:
        """x_0 of the face rows: in one step, or at the end of a short DDIM run from t (`x0_steps`).

        Only the last prediction carries gradients: the steps before it are where the picture is taken to.
        """
        steps, start = self.config.face_loss.x0_steps, batch.timesteps[batch.face_rows]
        timesteps = start
        for left in range(steps - 1, 0, -1):
            earlier = start * left // steps
            noisy = ddim_step(self.noise_scheduler, prediction.detach(), noisy, timesteps, earlier)
            timesteps = earlier
            with torch.set_grad_enabled(left == 1 and torch.is_grad_enabled()):
                prediction = self._predict(model, noisy, timesteps, batch, batch.face_rows).noise_pred
        return estimate_x0(self.noise_scheduler, prediction, noisy, timesteps)


class StepResult(NamedTuple):
    """What a step gave: `terms` (6,) global means in the order of `TERMS`, gradient norm, learning rate."""

    terms: Tensor
    gradient_norm: Tensor
    learning_rate: float


def train_step(
    engine: Any,
    objective: Objective,
    inputs: StepInputs,
    device: torch.device,
    dtype: torch.dtype,
    rate_factor: float = 1.0,
    check: Callable[[Tensor, Tensor | None], None] | None = None,
) -> StepResult:
    """Runs forward and backward over this worker's micro batches, then the optimizer step.

    Args:
        engine: DeepSpeed engine.
        objective: What is minimised.
        inputs: This worker's part of the global batch.
        device: Where the model is.
        dtype: Of the model.
        rate_factor: The scheduled learning rate is multiplied with it.
        check: Sees the terms of the global batch, and the gradient norm where it is known, before the weights
            change; what it raises leaves them as they were.
    """
    config = objective.config
    total = torch.zeros(len(TERMS), device=device)
    rate = rate_factor * learning_rate(inputs.step, config.steps, config.optimizer)
    norm = torch.zeros(())
    for number, micro_batch in enumerate(inputs.micro_batches, 1):
        terms = objective(engine, micro_batch.to(device, dtype))
        engine.backward(terms[0] * (torch.distributed.get_world_size() * len(inputs.micro_batches)))
        total += terms.detach().float()
        known = known_gradient_norm(engine)
        if number == len(inputs.micro_batches):
            torch.distributed.all_reduce(total)
            if check is not None:
                check(total, known)
        norm = apply_step(engine, rate, known)
    return StepResult(total, norm, rate)
