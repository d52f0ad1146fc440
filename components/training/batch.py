"""Samples and their draws -> the tensors of one forward pass.

What is in them is a function of (seed, step) and of positions in the global batch. Features and latents come
from the shards: no image encoder and no VAE run here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from components.core import face_weight
from components.shards import OTHER
from components.training.config import LossConfig, TrainConfig
from components.training.objective import Draws, sample_noise
from components.training.prompts import Prompts

FEATURES = "features.npy"
FIELDS = (FEATURES, "latents.npy", "identity.npy")
EXACT = {"landmarks_xy", "identity", "share", "face_share", "place_weight"}
"""Float32 whatever the model computes in."""


@dataclass(frozen=True)
class FromNoise:
    """Samples that are drawn from noise for the sampled identity loss, as tensors.

    Attributes:
        noise: (n, C, h, w) what the pictures start from.
        input_ids: (n, L) int64: the training prompt or the photo's own.
        word_positions: (n, L) int64, see `PromptTokens`.
        empty_ids: (n, L) int64, the empty prompt, for guidance.
        empty_positions: (n, L) int64.
        features: (n, m, T, D).
        identity: (n, D_id) of the reference photos.
        landmarks_xy: (n, 5, 2) pixels of the target picture, where none are found in the drawn one.
        share: () 1 / number of such samples in the global batch.
    """

    noise: Tensor
    input_ids: Tensor
    word_positions: Tensor
    empty_ids: Tensor
    empty_positions: Tensor
    features: Tensor
    identity: Tensor
    landmarks_xy: Tensor
    share: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Returns the samples on a device, floating tensors in `dtype` but for `EXACT`."""
        return type(self)(**_moved(self, device, dtype))


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one forward pass, as tensors.

    Attributes:
        moments: (B, 2C, h, w) mean and std of the VAE's posterior, unscaled.
        posterior_noise: (B, C, h, w).
        noise: (B, C, h, w).
        timesteps: (B,) int64.
        input_ids: (B, L) int64: the training prompt, the photo's own, or the empty one.
        word_positions: (B, L) int64, see `PromptTokens`.
        features: (B, m, T, D).
        gamma: (B,) weight of the text branch.
        sigma: (B,) weight of the visual branch.
        face_rows: (n,) int64, rows of the batch that take part in the identity loss.
        face_share: () 1 / number of such samples in the global batch.
        identity: (n, D_id) of the reference photos.
        landmarks_xy: (n, 5, 2) pixels of the target picture.
        from_noise: What the sampled identity loss draws; None where it draws nothing.
        place_weight: (B, 1, h, w) what each place counts in the diffusion term; None counts all alike.
    """

    moments: Tensor
    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor
    input_ids: Tensor
    word_positions: Tensor
    features: Tensor
    gamma: Tensor
    sigma: Tensor
    face_rows: Tensor
    face_share: Tensor
    identity: Tensor
    landmarks_xy: Tensor
    from_noise: FromNoise | None = None
    place_weight: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Returns the batch on a device, floating tensors in `dtype` but for `EXACT`."""
        return type(self)(**_moved(self, device, dtype))


def _moved(batch: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of a batch on a device."""
    moved: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            cast = value.is_floating_point() and field.name not in EXACT
            moved[field.name] = value.to(device, dtype if cast else None, non_blocking=True)
        else:
            moved[field.name] = None if value is None else value.to(device, dtype)
    return moved


@dataclass(frozen=True)
class StepInputs:
    """Everything a worker needs for one optimizer step.

    Attributes:
        step: Global batch, from 0.
        micro_batches: What to compute.
        keys: Names of this worker's samples, for messages.
        position: Place of the reader after this batch.
    """

    step: int
    micro_batches: tuple[MicroBatch, ...]
    keys: tuple[str, ...]
    position: int = 0


def step_inputs(
    sample: dict[str, Any],
    draws: Draws,
    positions: np.ndarray,
    config: TrainConfig,
    seed: int,
    step: int,
    prompts: Prompts,
    vae_scale_factor: int,
) -> MicroBatch:
    """Builds the tensors of some samples of global batch `step`.

    Args:
        sample: Field name -> stacked arrays of these samples, as the reader gives them.
        draws: Those of the whole global batch.
        positions: (B,) places of these samples in the global batch.
        config: The run.
        seed: The run's seed.
        step: Global batch, from 0.
        prompts: Token rows.
        vae_scale_factor: Pixels of a picture along the side of one latent.
    """
    mine = draws.at(positions)
    moments = torch.from_numpy(sample["latents.npy"])
    shape = (moments.shape[1] // 2, *moments.shape[2:])
    places = [int(position) for position in positions]
    noise = sample_noise(seed, step, places, shape, "noise")
    if config.losses.noise_offset:
        offset = sample_noise(seed, step, places, (shape[0], 1, 1), "offset")
        noise = noise + config.losses.noise_offset * offset
    ids, word_positions = prompts.rows(_prompts_of(mine, sample["meta.json"]))
    rows = np.flatnonzero(mine.face)
    landmarks = np.array([meta["target_landmarks_xy"] for meta in sample["meta.json"]], dtype=np.float32)
    return MicroBatch(
        moments=moments,
        posterior_noise=sample_noise(seed, step, places, shape, "posterior"),
        noise=noise,
        timesteps=torch.from_numpy(mine.timesteps),
        input_ids=ids,
        word_positions=word_positions,
        features=torch.from_numpy(_features_of(mine, sample)),
        gamma=torch.from_numpy(mine.gamma),
        sigma=torch.from_numpy(mine.sigma),
        face_rows=torch.from_numpy(rows),
        face_share=torch.tensor(1 / max(1, mine.face_count)),
        identity=torch.from_numpy(sample["identity.npy"][rows]),
        landmarks_xy=torch.from_numpy(landmarks[rows]),
        from_noise=_from_noise(sample, mine, positions, config, seed, step, prompts),
        place_weight=_place_weight(landmarks, shape[-1], vae_scale_factor, config.losses),
    )


def _place_weight(
    landmarks_xy: np.ndarray, side: int, vae_scale_factor: int, config: LossConfig
) -> Tensor | None:
    """(B, 1, side, side) over latents, of target pictures with these landmarks; None if all count alike."""
    if not (config.face_weight or config.mouth_weight):
        return None
    places = (landmarks_xy + 0.5) / vae_scale_factor - 0.5  # pixel centres to latent centres
    return torch.from_numpy(face_weight(places, side, config.face_weight, config.mouth_weight))


def _from_noise(
    sample: dict[str, Any], draws: Draws, positions: np.ndarray, config: TrainConfig, seed: int, step: int,
    prompts: Prompts,
) -> FromNoise | None:  # fmt: skip
    """What the sampled identity loss draws of these samples: each n-th of the global batch."""
    n = config.sampled_face.every_n_samples
    rows = np.flatnonzero(positions % n == 0)
    if not config.sampled_face.due(step) or not len(rows):
        return None
    metas = [sample["meta.json"][row] for row in rows]
    ids, word_positions = prompts.rows(_own_prompts(draws.own_prompt[rows], metas))
    empty_ids, empty_positions = prompts.rows([""] * len(rows))
    moments = sample["latents.npy"]
    shape = (moments.shape[1] // 2, *moments.shape[2:])
    landmarks = np.array([meta["target_landmarks_xy"] for meta in metas], dtype=np.float32)
    return FromNoise(
        noise=sample_noise(seed, step, [int(position) for position in positions[rows]], shape, "from noise"),
        input_ids=ids,
        word_positions=word_positions,
        empty_ids=empty_ids,
        empty_positions=empty_positions,
        features=torch.from_numpy(_features_of(draws, sample)[rows]),
        identity=torch.from_numpy(sample["identity.npy"][rows]),
        landmarks_xy=torch.from_numpy(landmarks),
        share=torch.tensor(1 / -(-config.global_batch_size // n)),
    )


def _prompts_of(draws: Draws, metas: Sequence[dict[str, Any]]) -> list[str | None]:
    """Returns each sample's prompt; None is the training prompt."""
    own = _own_prompts(draws.own_prompt, metas)
    return ["" if dropped else prompt for dropped, prompt in zip(draws.dropped, own, strict=True)]


def _own_prompts(own_prompt: np.ndarray, metas: Sequence[dict[str, Any]]) -> list[str | None]:
    return [meta.get("prompt") if own else None for meta, own in zip(metas, own_prompt, strict=True)]


def _features_of(draws: Draws, sample: dict[str, Any]) -> np.ndarray:
    """Returns (B, m, T, D): of each sample's own photo, or of another one of the person."""
    if not draws.paired.any():
        return sample[FEATURES]
    return np.where(draws.paired[:, None, None, None], sample[OTHER + FEATURES], sample[FEATURES])
