"""Rows -> pictures, by the pipeline; of several candidates the one whose face is most like the person's.

A UNet draws one person more alike from one noise than from another, and the identity network sees which. A
second network, which chose nothing, finds the kept pictures more alike as well (tests/benchmarks/LOG.md).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from components.core import derive_seed
from components.inference.attachment import Attachment
from components.inference.conditions import Row
from components.inference.likeness import Likeness, pixels
from components.inference.safety import SafetyCheck

logger = logging.getLogger(__name__)
SEED_LIMIT = 2**32


def candidates_of(row: Row) -> int:
    """Returns how many pictures are drawn of a row: one where no one card says whom they should be like."""
    return row.dials.candidates if len(row.persons) == 1 and not _unknown(row) else 1


def _unknown(row: Row) -> bool:
    """Whether a row has one person whose card is of before cards held an identity."""
    return len(row.persons) == 1 and row.persons[0].identity is None


def candidate_seeds(seed: int, count: int) -> list[int]:
    """Returns the seeds of a picture's candidates, its own first; more of them begin with the same."""
    return [seed, *(derive_seed("candidate", seed, k) % SEED_LIMIT for k in range(1, count))]


class Drawer:
    """Draws rows with a pipeline.

    Args:
        attachment: The pipeline with PhotoVerse attached.
        safety_check: Says which pictures must be blocked; None lets all pass.
        likeness: Gives what compares faces, or the fault why there is nothing; asked when it is needed.
        mark: Makes of a picture what is handed out. Candidates are compared as that: a faint face may be
            found without the invisible mark, and missed with it.
    """

    def __init__(
        self,
        attachment: Attachment,
        safety_check: SafetyCheck | None,
        likeness: Callable[[], Likeness | ValueError],
        mark: Callable[[Image.Image], Image.Image],
    ) -> None:
        self._attachment, self._safety_check, self._likeness = attachment, safety_check, likeness
        self._mark = mark
        self._img2img: Any = None

    def best(
        self, rows: Sequence[Row], seeds: Sequence[int], starts: Sequence[Image.Image | None], batch_size: int
    ) -> list[Image.Image | None]:
        """Draws the candidates of each row and returns its best; None if all of them are blocked."""
        if any(row.dials.candidates > 1 and _unknown(row) for row in rows):
            logger.warning("a card holds no identity to choose candidates by: make it anew; one is drawn")
        drafts = [
            (i, seed) for i, row in enumerate(rows) for seed in candidate_seeds(seeds[i], candidates_of(row))
        ]
        passed: list[list[Image.Image]] = [[] for _ in rows]
        for at in range(0, len(drafts), batch_size):
            part = drafts[at : at + batch_size]
            drawn = self._draw(
                [rows[i] for i, _ in part], [seed for _, seed in part], [starts[i] for i, _ in part]
            )
            blocks = self._safety_check(drawn) if self._safety_check else [False] * len(drawn)
            for (i, _), image, blocked in zip(part, drawn, blocks, strict=True):
                passed[i] += [] if blocked else [self._mark(image)]
        return [self._most_like(row, images) for row, images in zip(rows, passed, strict=True)]

    def _most_like(self, row: Row, images: Sequence[Image.Image]) -> Image.Image | None:
        if len(images) < 2:
            return images[0] if images else None
        likeness, identity = self._likeness(), row.persons[0].identity
        if isinstance(likeness, ValueError):
            raise ValueError(
                f"{row.dials.candidates} candidates cannot be compared: {likeness}"
            ) from likeness
        assert identity is not None  # else there would be one
        return images[likeness.best(identity.numpy(), [pixels(image) for image in images])]

    def _draw(
        self, rows: Sequence[Row], seeds: Sequence[int], starts: Sequence[Image.Image | None]
    ) -> list[Image.Image]:
        dials = [row.dials for row in rows]
        inputs = self._attachment.inputs(
            [row.prompt for row in rows], [row.persons for row in rows], dials, [row.negative for row in rows]
        )
        # On the CPU whatever the device: the same seed gives the same noise everywhere.
        inputs["generator"] = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        if dials[0].strength is None:
            return self._attachment.pipe(**inputs).images
        if any(start is None for start in starts):
            raise ValueError("a picture with a strength needs a start image")
        return self._image_to_image()(image=list(starts), strength=dials[0].strength, **inputs).images

    def _image_to_image(self) -> Any:
        """The image-to-image sibling of the pipeline: the same networks, PhotoVerse included."""
        if self._img2img is None:
            from diffusers import StableDiffusionImg2ImgPipeline

            self._img2img = StableDiffusionImg2ImgPipeline(
                **self._attachment.pipe.components, requires_safety_checker=False
            )
            self._img2img.set_progress_bar_config(
                **getattr(self._attachment.pipe, "_progress_bar_config", {})
            )
        return self._img2img
