"""The generator of the stage: the adapter on a stock pipeline, through `components.inference`.

Identity cards are made from the features that the shards hold, so no detector stands between the reference
and the picture. The base model alone is the same pipeline with sigma = alpha = 0 and a prompt without S*,
which equals the bare pipeline bit for bit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from components.core import Checkpoint, RuntimeConfig
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.evaluation.generate import Shot
from components.inference import IdentityCard, Personalizer

if TYPE_CHECKING:
    from components.face import FaceConfig
    from components.model import ModelConfig

CONSENT = "evaluation on a held-out photo of the prepared set"


class PersonalizerGenerator:
    """Draws the people of photos, and nobody for None. Keeps the cards of people that it has met."""

    def __init__(self, personalizer: Personalizer, config: EvaluationConfig) -> None:
        self._personalizer, self._config = personalizer, config
        self._cards: dict[str, IdentityCard] = {}

    @classmethod
    def load(
        cls,
        config: EvaluationConfig,
        model: "ModelConfig",
        face: "FaceConfig",
        runtime: RuntimeConfig,
        checkpoint: Checkpoint,
    ) -> "PersonalizerGenerator":
        """Loads base and adapter.

        Raises:
            ValueError: A part is missing, or the adapter belongs to another base.
        """
        version = f"run {checkpoint.run_name}, step {checkpoint.step}"
        loaded = Personalizer.load(Path(checkpoint.adapter), model, face, runtime, model_version=version)
        return cls(loaded, config)

    def __call__(self, shots: Sequence[Shot]) -> list[Image.Image]:
        """Returns one picture for each shot, with its recipe."""
        self._make_cards([shot.reference for shot in shots if shot.reference is not None])
        return self._personalizer.generate(
            [None if shot.reference is None else self._cards[shot.reference.key] for shot in shots],
            [shot.prompt for shot in shots],
            [shot.seed for shot in shots],
            [shot.dials for shot in shots],
            [self._config.negative_prompt] * len(shots),
            start_images=[start_of(shot) for shot in shots],
            batch_size=self._config.batch_size,
        )

    @torch.no_grad()
    def through_vae(self, pictures_uint8: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Returns pictures (H, W, 3) RGB as the VAE gives them back: the best that the base can draw."""
        pipe, made = self._personalizer.attachment.pipe, []
        for at in range(0, len(pictures_uint8), 4):  # few: encoders take more memory than the UNet
            batch = np.stack(pictures_uint8[at : at + 4])
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).to(pipe.device, pipe.vae.dtype) / 127.5 - 1
            decoded = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode()).sample
            levels = ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            made += list(levels.permute(0, 2, 3, 1).cpu().numpy())
        return made

    def _make_cards(self, photos: Sequence[Photo]) -> None:
        new = list({photo.key: photo for photo in photos if photo.key not in self._cards}.values())
        if not new:
            return
        features_BmTD = torch.from_numpy(np.stack([photo.features for photo in new]).astype(np.float32))
        identities_BD = torch.from_numpy(np.stack([photo.identity for photo in new]))
        cards = self._personalizer.attachment.cards(features_BmTD, CONSENT, identities_BD=identities_BD)
        self._cards |= {photo.key: card for photo, card in zip(new, cards, strict=True)}


def start_of(shot: Shot) -> Image.Image | None:
    """Returns what a picture with a strength starts from: the reference's own picture."""
    if shot.dials.strength is None or shot.reference is None:
        return None
    return Image.fromarray(shot.reference.target_uint8)
