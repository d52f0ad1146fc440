"""A grid of sample pictures of held-out people: reference, then generated pictures from fixed noise.

Only the model's own parts and a short DDIM run: enough to see training progress. Pictures for users come
from the inference room.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from components.training.config import TrainConfig
from components.training.objective import sample_noise
from components.training.prompts import Prompts

PICTURES = 3  # generated pictures a person
MARGIN = 2  # pixels between cells


@torch.no_grad()
def sample_pictures(
    predict: Any, vae: Any, noise_scheduler: Any, samples: Sequence[dict[str, Any]], prompts: Prompts,
    config: TrainConfig, seed: int, device: torch.device, dtype: torch.dtype,
) -> NDArray[np.uint8]:  # fmt: skip
    """Generates `PICTURES` pictures for each sample with guidance; both branches, alpha as trained.

    Returns:
        (S, PICTURES, H, W, 3) RGB uint8.
    """
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(noise_scheduler.config, clip_sample=False)
    scheduler.set_timesteps(config.validation.sample_steps, device=device)
    count = len(samples) * PICTURES
    features = torch.from_numpy(np.stack([sample["features.npy"] for sample in samples])).to(device, dtype)
    features = features.repeat_interleave(PICTURES, dim=0)
    channels, height, width = samples[0]["latents.npy"].shape
    keys = [f"{sample['__key__']} {i}" for sample in samples for i in range(PICTURES)]
    latents = sample_noise(seed, "grid", keys, (channels // 2, height, width), "noise").to(device, dtype)
    latents = latents * scheduler.init_noise_sigma
    ids, positions = (rows.to(device) for rows in prompts.rows([""] * count + [None] * count))
    sigma = torch.tensor([0.0] * count + [1.0] * count, device=device, dtype=dtype)
    gamma, alpha = torch.ones_like(sigma), config.alpha
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        steps = timestep.expand(2 * count).to(device)
        prediction = predict(both, steps, ids, positions, torch.cat([features] * 2), gamma, sigma, alpha)
        without, within = prediction.noise_pred.chunk(2)
        guided = without + config.validation.guidance_scale * (within - without)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    images = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels.reshape(len(samples), PICTURES, *pixels.shape[1:])


def picture_grid(references: Sequence[NDArray[np.uint8]], pictures: NDArray[np.uint8]) -> Image.Image:
    """Lays out one row a person: target photo at the left, generated pictures beside it.

    Args:
        references: S target photos (H, W, 3), RGB.
        pictures: (S, n, H, W, 3) RGB.
    """
    people, count, height, width, _ = pictures.shape
    grid = Image.new("RGB", ((count + 1) * (width + MARGIN), people * (height + MARGIN)), "white")
    for row in range(people):
        reference = Image.fromarray(references[row]).resize((width, height))
        for column, cell in enumerate([reference, *map(Image.fromarray, pictures[row])]):
            grid.paste(cell, (column * (width + MARGIN), row * (height + MARGIN)))
    return grid


def one_a_person(samples: Sequence[dict[str, Any]], people: int) -> list[dict[str, Any]]:
    """Returns the first sample of each of the first `people` people."""
    first: dict[str, dict[str, Any]] = {}
    for sample in samples:
        first.setdefault(sample["meta.json"]["person"], sample)
    return list(first.values())[:people]
