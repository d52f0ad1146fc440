"""What the tests of stock pipelines share: a prompt, dials, a card of nobody, pictures in and out."""

import numpy as np
import torch
from PIL import Image

from components.inference import Attachment, Dials

PROMPT = "a photo of S*, smiling"
OFF = Dials(sigma=0, alpha=0, num_inference_steps=3, guidance_scale=3)
ON = Dials(num_inference_steps=3, guidance_scale=3)


def card(person: Attachment, seed: int = 0):
    shape = (1, person.adapter.m, 2, person.adapter.feature_width)
    return person.cards(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))[0]


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def images(pipe, **kwargs) -> torch.Tensor:
    kwargs.setdefault("generator", torch.Generator().manual_seed(3))
    with torch.no_grad():
        return pipe(**kwargs, output_type="pt").images
