"""What a step asks of the model: random draws, noisy latents, the prediction's target, the estimate of x_0.

Every draw is a pure function of (seed, step, position in the global batch). So a run gives the same losses
whatever the number of workers and micro batches, and a resumed run draws what an undisturbed one would have
drawn.

Legend: B samples, C h w latents.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.core import derive_seed
from components.training.config import FaceLossConfig, TrainConfig
from components.training.fusion import eq4_random_fusion

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Draws:
    """The random choices of a step, one entry a sample.

    Attributes:
        timesteps: (B,) int64.
        gamma: (B,) float32, weight of the text branch.
        sigma: (B,) float32, weight of the visual branch.
        dropped: (B,) bool, the sample sees the empty prompt and no visual branch.
        own_prompt: (B,) bool, the sample sees its photo's own prompt, if it has one.
        paired: (B,) bool, the features are those of another photo of the person, if there is one.
        face: (B,) bool, the sample takes part in the identity loss.
        face_count: Number of samples of the *global* batch that take part.
    """

    timesteps: NDArray[np.int64]
    gamma: NDArray[np.float32]
    sigma: NDArray[np.float32]
    dropped: NDArray[np.bool_]
    own_prompt: NDArray[np.bool_]
    paired: NDArray[np.bool_]
    face: NDArray[np.bool_]
    face_count: int

    def at(self, positions: NDArray[np.int64]) -> Self:
        """Returns the entries of some positions; `face_count` stays that of the global batch."""
        return type(self)(
            self.timesteps[positions],
            self.gamma[positions],
            self.sigma[positions],
            self.dropped[positions],
            self.own_prompt[positions],
            self.paired[positions],
            self.face[positions],
            self.face_count,
        )


def draw_step(config: TrainConfig, seed: int, step: int, num_train_timesteps: int) -> Draws:
    """Draws everything but the noise for global batch `step` (from 0)."""
    rng = np.random.default_rng(derive_seed(seed, "draws", step))
    batch = config.global_batch_size
    spread = rng.random(batch)
    if config.losses.timestep_sampling == "stratified":
        spread = (rng.permutation(batch) + spread) / batch
    timesteps = np.minimum((spread * num_train_timesteps).astype(np.int64), num_train_timesteps - 1)
    gamma, sigma = eq4_random_fusion(rng.random(batch), step, config.fusion)
    dropped = rng.random(batch) < config.condition_dropout
    gamma, sigma = np.where(dropped, np.float32(1), gamma), np.where(dropped, np.float32(0), sigma)
    face = _draw_face(rng.random(batch), timesteps, dropped, step, num_train_timesteps, config.face_loss)
    own_prompt = rng.random(batch) < config.photo_prompts
    paired = rng.random(batch) < config.pairs
    return Draws(timesteps, gamma, sigma, dropped, own_prompt, paired, face, int(face.sum()))


def _draw_face(
    order: NDArray[np.float64],
    timesteps: NDArray[np.int64],
    dropped: NDArray[np.bool_],
    step: int,
    num_train_timesteps: int,
    config: FaceLossConfig,
) -> NDArray[np.bool_]:
    """Takes at most `fraction` of the batch, in random order, from the samples that may take part."""
    chosen = np.zeros(len(order), dtype=bool)
    due = step >= config.start_step and step % config.every_n_steps == 0
    if config.lambda_face == 0 or not due:
        return chosen
    allowed = np.flatnonzero((timesteps < config.max_timestep * num_train_timesteps) & ~dropped)
    most = max(1, int(config.fraction * len(order)))
    chosen[allowed[np.argsort(order[allowed], kind="stable")][:most]] = True
    return chosen


def sample_noise(
    seed: int, step: int | str, positions: Iterable[int | str], shape: tuple[int, ...], purpose: str
) -> Tensor:
    """Returns standard normal noise (B, *shape), float32, each sample from a stream of its own.

    Args:
        seed: The run's seed.
        step: Optimizer step, or a name for noise that is the same at each (validation).
        positions: What tells the samples apart: positions in the global batch, or keys.
        shape: Shape of one sample's noise.
        purpose: Separates the streams of one sample ("posterior", "noise").
    """
    streams = (np.random.default_rng(derive_seed(seed, purpose, step, position)) for position in positions)
    return torch.from_numpy(np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in streams]))


def sample_latents(moments: Tensor, noise: Tensor, scaling_factor: float) -> Tensor:
    """Draws from the VAE's posterior: (mean + std * noise) * scaling_factor.

    Args:
        moments: (B, 2C, h, w), mean and standard deviation before scaling, as the shards hold them.
        noise: (B, C, h, w).
        scaling_factor: `vae.config.scaling_factor`.
    """
    mean, std = moments.to(noise.dtype).chunk(2, dim=1)
    return (mean + std * noise) * scaling_factor


def prediction_target(noise_scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Returns what the UNet should predict, as the base's scheduler says: noise, velocity or the latents.

    Raises:
        ValueError: The scheduler's prediction type is not known.
    """
    kind = noise_scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return noise_scheduler.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f"prediction type {kind!r} of the base is not known: {', '.join(PREDICTION_TYPES)}")


def estimate_x0(noise_scheduler: Any, prediction: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
    """Returns the one-step estimate of x_0 (DDIM, arXiv 2010.02502, Eq. 12), in float32 at least.

    With epsilon-prediction the estimate does not exist at zero signal; there the signal is bounded
    below.
    """
    high = torch.promote_types(noisy_latents.dtype, torch.float32)
    alpha_bar = noise_scheduler.alphas_cumprod.to(device=timesteps.device, dtype=high)[timesteps]
    alpha_bar = alpha_bar.reshape(-1, *[1] * (noisy_latents.dim() - 1))
    signal, noise_share = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    prediction, noisy = prediction.to(high), noisy_latents.to(high)
    kind = noise_scheduler.config.prediction_type
    if kind == "epsilon":
        return (noisy - noise_share * prediction) / signal.clamp_min(1e-4)
    if kind == "v_prediction":
        return signal * noisy - noise_share * prediction
    if kind == "sample":
        return prediction
    raise ValueError(f"prediction type {kind!r} of the base is not known: {', '.join(PREDICTION_TYPES)}")


def ddim_step(
    noise_scheduler: Any, prediction: Tensor, noisy_latents: Tensor, timesteps: Tensor, earlier: Tensor
) -> Tensor:
    """Takes latents from `timesteps` to `earlier` without new noise (DDIM, arXiv 2010.02502, Eq. 12).

    Args:
        noise_scheduler: The base's schedule and prediction type.
        prediction: (B, C, h, w), the UNet's for `noisy_latents` at `timesteps`.
        noisy_latents: (B, C, h, w).
        timesteps: (B,) int64.
        earlier: (B,) int64, each at most its timestep; where they are equal nothing changes.

    Returns:
        (B, C, h, w) in the dtype of `noisy_latents`.
    """
    x0 = estimate_x0(noise_scheduler, prediction, noisy_latents, timesteps)
    bars = noise_scheduler.alphas_cumprod.to(device=timesteps.device, dtype=x0.dtype)
    now, then = (bars[at].reshape(-1, *[1] * (x0.dim() - 1)) for at in (timesteps, earlier))
    noise = (noisy_latents.to(x0.dtype) - now.sqrt() * x0) / (1 - now).sqrt()
    moved = then.sqrt() * x0 + (1 - then).sqrt() * noise
    return moved.to(noisy_latents.dtype)


def signal_to_noise(noise_scheduler: Any, timesteps: Tensor) -> Tensor:
    """Returns alpha_bar / (1 - alpha_bar) at each timestep (B,)."""
    alpha_bar = noise_scheduler.alphas_cumprod.to(timesteps.device).float()[timesteps]
    return alpha_bar / (1 - alpha_bar)
