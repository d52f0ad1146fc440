"""One training step: prediction, the four losses averaged over the global batch, backward, optimizer step.

Averages: every term is a mean over the samples of the *global* batch (the identity term over those that
    take part in it), whatever the number of workers and accumulation steps. DeepSpeed averages gradients
    over workers and accumulation steps, so the loss that it gets is the local sum times both numbers.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.training.config import TrainConfig
from components.training.engine import apply_step, learning_rate
from components.training.feed import MicroBatch, StepInputs
from components.training.losses import (
    diffusion_loss,
    face_loss,
    min_snr_weights,
    text_regularizer,
    visual_regularizer,
)
from components.training.objective import estimate_x0, prediction_target, sample_latents, signal_to_noise

TERMS = ("loss", "diffusion", "face", "text_regularizer", "visual_regularizer")


class FaceIdentity(nn.Module):
    """Latents -> picture -> aligned face -> identity, differentiable: what the identity loss looks through.

    Args:
        vae: The base's VAE, frozen.
        arcface: `DifferentiableArcFace`.
    """

    def __init__(self, vae: Any, arcface: Any) -> None:
        super().__init__()
        self.vae, self.arcface = vae.requires_grad_(False).eval(), arcface

    def forward(self, latents: Tensor, landmarks_xy: Tensor) -> Tensor:
        """Returns unit-norm embeddings (n, D) of latents (n, C, h, w), scaled as the UNet sees them.

        Args:
            latents: Estimates of x_0.
            landmarks_xy: (n, 5, 2) in pixels of the target picture, found without gradient.
        """
        from components.face import warp_faces

        images_m11 = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
        return self.arcface.embed(warp_faces(images_m11.float(), landmarks_xy))


class Objective:
    """The training objective over a micro batch (PhotoVerse Eq. 5-8).

    Args:
        config: The run.
        noise_scheduler: The base's schedule and prediction type.
        scaling_factor: `vae.config.scaling_factor`.
        face: None if the identity term is off.
    """

    def __init__(
        self, config: TrainConfig, noise_scheduler: Any, scaling_factor: float, face: FaceIdentity | None
    ) -> None:
        self.config, self.noise_scheduler, self.scaling_factor = config, noise_scheduler, scaling_factor
        self.face = face

    def __call__(self, model: Any, batch: MicroBatch) -> Tensor:
        """Returns the terms (5,), ordered as `TERMS`: this micro batch's share of the global means."""
        config = self.config
        latents = sample_latents(batch.moments, batch.posterior_noise, self.scaling_factor)
        noisy_latents = self.noise_scheduler.add_noise(latents, batch.noise, batch.timesteps)
        prediction = model(
            noisy_latents, batch.timesteps, batch.input_ids, batch.word_positions, batch.features,
            batch.gamma, batch.sigma, config.alpha,
        )  # fmt: skip
        target = prediction_target(self.noise_scheduler, latents, batch.noise, batch.timesteps)
        diffusion = self._weights(batch.timesteps) * diffusion_loss(prediction.noise_pred, target)
        share = 1 / config.global_batch_size
        diffusion = diffusion.sum() * share
        text = text_regularizer(prediction.p_f).sum() * share
        visual = visual_regularizer(prediction.visual_values).sum() * share
        face = self._face_term(prediction.noise_pred, noisy_latents, batch)
        total = (
            diffusion
            + config.face_loss.lambda_face * face
            + config.losses.lambda_text * text
            + config.losses.lambda_visual * visual
        )
        return torch.stack([total, diffusion, face, text, visual])

    def _weights(self, timesteps: Tensor) -> Tensor:
        gamma = self.config.losses.min_snr_gamma
        if gamma is None:
            return torch.ones((), device=timesteps.device)
        snr = signal_to_noise(self.noise_scheduler, timesteps)
        return min_snr_weights(snr, gamma, self.noise_scheduler.config.prediction_type)

    def _face_term(self, prediction: Tensor, noisy_latents: Tensor, batch: MicroBatch) -> Tensor:
        rows = batch.face_rows
        if self.face is None or not len(rows):
            return torch.zeros((), device=prediction.device)
        x0 = estimate_x0(self.noise_scheduler, prediction[rows], noisy_latents[rows], batch.timesteps[rows])
        embedding = self.face(x0, batch.landmarks_xy)
        if embedding.shape != batch.identity.shape:
            raise ValueError(
                f"the shards' identities are {batch.identity.shape[1]} wide, the identity network gives "
                f"{embedding.shape[1]}: the shards were prepared with another network"
            )
        return face_loss(batch.identity, embedding).sum() * batch.face_share


class StepResult(NamedTuple):
    """What a step gave: `terms` (5,) global means in the order of `TERMS`, gradient norm, learning rate."""

    terms: Tensor
    gradient_norm: Tensor
    learning_rate: float


def train_step(
    engine: Any, objective: Objective, inputs: StepInputs, device: torch.device, dtype: torch.dtype
) -> StepResult:
    """Runs forward and backward over this worker's micro batches, then the optimizer step."""
    config = objective.config
    total = torch.zeros(len(TERMS), device=device)
    for micro_batch in inputs.micro_batches:
        terms = objective(engine, micro_batch.to(device, dtype))
        engine.backward(terms[0] * (torch.distributed.get_world_size() * len(inputs.micro_batches)))
        total += terms.detach().float()
        rate = learning_rate(inputs.step, config.steps, config.optimizer)
        norm = apply_step(engine, rate)
    torch.distributed.all_reduce(total)
    return StepResult(total, norm, rate)
