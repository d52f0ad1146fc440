"""The safety checker that comes with a base: diffusers' own, its verdict a status, not a black square."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

SafetyCheck = Callable[[Sequence[Image.Image]], list[bool]]
PART = "safety_checker"


@dataclass(frozen=True)
class Blocked:
    """In place of a picture that may not be shown.

    Attributes:
        seed: Of the picture; another seed may give one that passes.
        status: Stable code.
    """

    seed: int
    status: Literal["blocked"] = "blocked"


class BlockedError(ValueError):
    """A picture was asked for that the base's safety checker does not let pass.

    Attributes:
        reason: Stable code, beside those of `FaceError`.
        seeds: Of the blocked pictures.
    """

    reason: Literal["blocked"] = "blocked"

    def __init__(self, seeds: Sequence[int]) -> None:
        named = ", ".join(map(str, seeds))
        super().__init__(
            f"blocked by the base's safety checker (seed {named}): change the prompt or the seed"
        )
        self.seeds = tuple(seeds)


class StableDiffusionCheck:
    """diffusers' safety checker as a function: pictures -> whether each must be blocked.

    Args:
        checker: `StableDiffusionSafetyChecker`.
        processor: The CLIP image processor that belongs to it.
    """

    def __init__(self, checker: Any, processor: Any) -> None:
        self._checker, self._processor = checker, processor

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[bool]:
        """Returns True for each picture that must not be shown; the pictures stay as they are."""
        pixels = self._processor(list(images), return_tensors="pt").pixel_values
        given = pixels.to(self._checker.device, self._checker.dtype)
        blackened = [np.zeros((1, 1, 3)) for _ in images]  # the checker paints over what it is given
        _, found = self._checker(clip_input=given, images=blackened)
        return [bool(flag) for flag in found]


def load_safety_check(base: str, device: Any, dtype: torch.dtype) -> SafetyCheck | None:
    """Returns the checker that a base comes with, None where it comes with none (as Stable Diffusion 2.1).

    Args:
        base: Folder or hub id.
        device: Where it runs.
        dtype: Its weights' type.
    """
    from diffusers import StableDiffusionPipeline

    local = Path(base).is_dir()
    named = (Path(base) / PART).is_dir() if local else StableDiffusionPipeline.load_config(base).get(PART)
    if not named or named == [None, None]:
        return None
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil

    checker = StableDiffusionSafetyChecker.from_pretrained(
        base, subfolder=PART, use_safetensors=True, dtype=dtype
    )
    processor = CLIPImageProcessorPil.from_pretrained(base, subfolder="feature_extractor")
    return StableDiffusionCheck(checker.to(device).eval(), processor)
