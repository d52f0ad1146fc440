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
from PIL import Image

from components.core import Checkpoint, RuntimeConfig
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.inference import Dials, IdentityCard, Personalizer

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

    def __call__(self, references: Sequence[Photo | None], seeds: Sequence[int]) -> list[Image.Image]:
        """Returns one picture for each, with its recipe."""
        self._make_cards([photo for photo in references if photo is not None])
        config = self._config
        return self._personalizer.generate(
            [None if photo is None else self._cards[photo.key] for photo in references],
            [config.base_prompt if photo is None else config.prompt for photo in references],
            seeds,
            [base_dials(config.dials) if photo is None else config.dials for photo in references],
            [config.negative_prompt] * len(seeds),
            batch_size=config.batch_size,
        )

    def _make_cards(self, photos: Sequence[Photo]) -> None:
        new = list({photo.key: photo for photo in photos if photo.key not in self._cards}.values())
        if not new:
            return
        features_BmTD = torch.from_numpy(np.stack([photo.features for photo in new]).astype(np.float32))
        cards = self._personalizer.attachment.cards(features_BmTD, CONSENT)
        self._cards |= {photo.key: card for photo, card in zip(new, cards, strict=True)}


def base_dials(dials: Dials) -> Dials:
    """Returns dials that leave the base model alone, with the same sampler."""
    return Dials(
        gamma=1,
        sigma=0,
        alpha=0,
        guidance_scale=dials.guidance_scale,
        num_inference_steps=dials.num_inference_steps,
    )
