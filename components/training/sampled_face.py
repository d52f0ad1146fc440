"""The identity of pictures as they are drawn: noise -> DDIM with guidance -> picture -> face -> identity.

Gradients flow from the identity through every step. The face stands wherever the noise put it, so a detector
looks for it, without gradient.

Shapes: n pictures, C h w latents, H W pixels, D identity width.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.training.batch import FromNoise
from components.training.config import SampledFaceConfig
from components.training.face_identity import FaceIdentity, check_width
from components.training.job import Job
from components.training.losses import eq7_face_loss


class SampledFace:
    """1 - cos(ArcFace(x), ArcFace(x')), x' drawn from noise (a departure from PhotoVerse Eq. 7).

    Args:
        config: Steps and weights of the drawing.
        noise_scheduler: The base's schedule; steps are spaced as its config says.
        face: Decoder and identity network.
        detect: `uint8 (H, W, 3) RGB -> faces`, largest first.
        alpha: Weight of the LoRA part.
    """

    def __init__(
        self, config: SampledFaceConfig, noise_scheduler: Any, face: FaceIdentity, detect: Any, alpha: float
    ) -> None:
        from diffusers import DDIMScheduler

        self._scheduler = DDIMScheduler.from_config(noise_scheduler.config, clip_sample=False)
        self._scheduler.set_timesteps(len(config.sigma))
        self._config, self._face, self._detect, self._alpha = config, face, detect, alpha

    def __call__(self, model: Any, batch: FromNoise) -> Tensor:
        """Returns the loss of each picture, (n,) in [0, 2].

        Where no face is found the landmarks are those of the target picture: what is seen there is no face
        either, and losing faces is no way to a lower loss.
        """
        from components.face import warp_faces

        images_m11 = self._face.pictures(self.draw(model, batch))
        landmarks_xy = self._landmarks(images_m11, batch.landmarks_xy)
        embedding = self._face.arcface.embed(warp_faces(images_m11, landmarks_xy))
        check_width(batch.identity, embedding)
        return eq7_face_loss(batch.identity, embedding)

    def draw(self, model: Any, batch: FromNoise) -> Tensor:
        """Returns x' as latents (n, C, h, w): DDIM with guidance, gradients through conditional passes."""
        person = model.condition(batch.input_ids, batch.word_positions, batch.features)
        words_alone = person._replace(visual_tokens=None)
        with torch.no_grad():
            nothing = model.condition(batch.empty_ids, batch.empty_positions, batch.features)
            nothing = nothing._replace(visual_tokens=None)
        latents, hold = batch.noise, HeldGradient()
        for timestep, sigma in zip(self._scheduler.timesteps, self._config.sigma, strict=True):
            condition = person if sigma else words_alone
            noise_pred = self._noise_pred(model, latents, timestep, condition, nothing, sigma)
            latents = self._scheduler.step(noise_pred, timestep, latents).prev_sample
            if latents.requires_grad and self._config.hold_gradients:
                latents.register_hook(hold)
        return latents

    def _noise_pred(
        self, model: Any, latents: Tensor, timestep: Tensor, person: Any, nothing: Any, sigma: float
    ) -> Tensor:
        timesteps = timestep.to(latents.device).expand(len(latents))
        alpha, scale = self._alpha, self._config.guidance_scale
        with_person: Tensor = model.denoise(latents, timesteps, person, sigma=sigma, alpha=alpha)
        if scale == 1:
            return with_person
        with torch.no_grad():
            without = model.denoise(latents, timesteps, nothing, alpha=alpha)
        return without + scale * (with_person - without)

    def _landmarks(self, images_m11: Tensor, otherwise_xy: Tensor) -> Tensor:
        pixels = ((images_m11.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        landmarks_xy = otherwise_xy.clone()
        for row, picture in enumerate(pixels.permute(0, 2, 3, 1).cpu().numpy()):
            faces = self._detect(np.ascontiguousarray(picture))
            if faces:
                landmarks_xy[row] = torch.from_numpy(faces[0].landmarks_xy)
        return landmarks_xy


class HeldGradient:
    """Holds each picture's gradient, on its way back through the steps, at the norm that it begins with.

    A hook on the latents of every step. Guided steps let gradients grow, of a few pictures so far that they
    outweigh the others of the batch (tests/benchmarks/LOG.md).
    """

    def __init__(self) -> None:
        self._limit: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """Returns the gradients (n, C, h, w), shortened; those of x' come first and set the limits (n,)."""
        norm = gradient.flatten(1).norm(dim=1)
        if self._limit is None:
            self._limit = norm
        shrink = (self._limit / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
        return gradient * shrink.view(-1, 1, 1, 1)


def load_sampled_face(job: Job, noise_scheduler: Any, face: FaceIdentity | None) -> SampledFace | None:
    """Loads what the sampled identity loss needs beside `face`; None if the term is off."""
    from components.face import load_detector

    config = job.config.sampled_face
    if config.lambda_sampled == 0 or face is None:
        return None
    return SampledFace(config, noise_scheduler, face, load_detector(job.face), job.config.alpha)
