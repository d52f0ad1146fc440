"""Makes the pictures to be judged, each once: a killed evaluation goes on where it was.

Every picture is a file whose name holds the person and the seed, in a folder named after everything the
pixels depend on (adapter, base, dials, prompts); what is there is not made again.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.core import Progress, derive_seed
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.inference import save_png

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shot:
    """One picture to make: of the reference's person, or (reference None) by the base model alone."""

    reference: Photo | None
    seed: int
    path: Path


class Generator(Protocol):
    """Makes pictures; each depends on its own reference and seed alone."""

    def __call__(self, references: Sequence[Photo | None], seeds: Sequence[int]) -> list[Image.Image]:
        """Returns one RGB picture for each; reference None means the base model alone."""
        ...


def picture_seeds(config: EvaluationConfig, reference: Photo) -> list[int]:
    """Returns the seeds of a reference's pictures: a pure function of the config's seed and the photo."""
    return [
        derive_seed(config.seed, reference.person, reference.key, k) % 2**31
        for k in range(config.pictures_per_reference)
    ]


def safe_name(person: str) -> str:
    """Returns a file name for any person label: readable, and different for different people."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in person)[:40]
    return (
        plain if plain == person and plain else f"{plain}-{hashlib.sha256(person.encode()).hexdigest()[:8]}"
    )


def plan_shots(config: EvaluationConfig, references: Sequence[Photo], folder: Path) -> list[list[Shot]]:
    """Returns (R lists of K): the pictures of each reference, below `folder/people`."""
    return [
        [
            Shot(
                reference,
                seed,
                folder / "people" / f"{safe_name(reference.person)}-{reference.key}-{seed}.png",
            )
            for seed in picture_seeds(config, reference)
        ]
        for reference in references
    ]


def plan_base_shots(config: EvaluationConfig, references: Sequence[Photo], folder: Path) -> list[Shot]:
    """Returns the pictures of the base model alone, from the first seeds, below `folder/base`."""
    seeds = [
        seed
        for reference in references
        for seed in picture_seeds(config, reference)[: config.base_pictures_per_reference]
    ]
    return [Shot(None, seed, folder / "base" / f"{seed}.png") for seed in dict.fromkeys(seeds)]


def make_missing(shots: Sequence[Shot], generator: Generator, batch_size: int) -> int:
    """Makes the pictures that are not there yet; returns how many that were.

    Raises:
        ValueError: The generator gave another number of pictures than asked for.
    """
    missing = [shot for shot in shots if not shot.path.is_file()]
    if len(missing) < len(shots):
        logger.info("%d of %d pictures are there already", len(shots) - len(missing), len(shots))
    with Progress("evaluate", len(missing), "pictures") as progress:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            pictures = generator([shot.reference for shot in batch], [shot.seed for shot in batch])
            if len(pictures) != len(batch):
                raise ValueError(f"the generator gave {len(pictures)} pictures for {len(batch)} seeds")
            for shot, picture in zip(batch, pictures, strict=True):
                save_png(picture, shot.path)
            progress.advance(len(batch))
    return len(missing)


def load_pictures(shots: Sequence[Shot]) -> list[NDArray[np.uint8]]:
    """Reads the pictures back, (H, W, 3) RGB each: what is judged is what lies on disk."""
    pictures = []
    for shot in shots:
        with Image.open(shot.path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    return pictures
