"""Makes the pictures to be judged, each once: a killed evaluation goes on where it was.

A series is what is drawn alike: one prompt, one set of dials, so many pictures of some references. Every
picture is a file whose name holds the person and the seed, in a folder named after everything the pixels
depend on (adapter, base, dials, prompts); what is there is not made again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.core import Progress, derive_seed, peak_memory, write_text_atomic
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.inference import Dials, save_png

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shot:
    """One picture to make.

    Attributes:
        reference: Whose person it shows; None draws with the base model alone.
        seed: Of its noise.
        path: Its file.
        prompt: Holds S* where there is a reference.
        dials: How; with a strength the picture starts from the reference's own.
    """

    reference: Photo | None
    seed: int
    path: Path
    prompt: str
    dials: Dials


class Generator(Protocol):
    """Makes pictures; each depends on its own shot alone."""

    def __call__(self, shots: Sequence[Shot]) -> list[Image.Image]:
        """Returns one RGB picture for each shot, in order."""
        ...


def picture_seeds(config: EvaluationConfig, reference: Photo, count: int | None = None) -> list[int]:
    """Returns the seeds of a reference's pictures: a pure function of the config's seed and the photo."""
    return [
        derive_seed(config.seed, reference.person, reference.key, k) % 2**31
        for k in range(config.pictures_per_reference if count is None else count)
    ]


def safe_name(person: str) -> str:
    """Returns a file name for any person label: readable, and different for different people."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in person)[:40]
    return (
        plain if plain == person and plain else f"{plain}-{hashlib.sha256(person.encode()).hexdigest()[:8]}"
    )


def plan_shots(
    config: EvaluationConfig,
    references: Sequence[Photo],
    folder: Path,
    *,
    prompt: str | None = None,
    dials: Dials | None = None,
    count: int | None = None,
) -> list[list[Shot]]:
    """Returns (R lists of K): the pictures of each reference, below `folder/people`.

    Args:
        config: Prompt, dials and number of pictures, where none are given; the root of the seeds.
        references: Whose people are drawn.
        folder: Of this series.
        prompt: With S*.
        dials: Of every picture.
        count: K.
    """
    people = folder / "people"
    return [
        [
            Shot(
                reference,
                seed,
                people / f"{safe_name(reference.person)}-{reference.key}-{seed}.png",
                config.prompt if prompt is None else prompt,
                config.dials if dials is None else dials,
            )
            for seed in picture_seeds(config, reference, count)
        ]
        for reference in references
    ]


def plan_base_shots(
    config: EvaluationConfig,
    references: Sequence[Photo],
    folder: Path,
    *,
    prompt: str | None = None,
    count: int | None = None,
) -> list[Shot]:
    """Returns the pictures of the base model alone, from the first seeds, below `folder/base`."""
    kept = config.base_pictures_per_reference if count is None else count
    seeds = [seed for reference in references for seed in picture_seeds(config, reference, kept)]
    wanted = config.base_prompt if prompt is None else prompt
    dials = base_dials(config.dials)
    return [Shot(None, seed, folder / "base" / f"{seed}.png", wanted, dials) for seed in dict.fromkeys(seeds)]


def base_dials(dials: Dials) -> Dials:
    """Returns dials that leave the base model alone, with the same sampler."""
    return Dials(
        gamma=1,
        sigma=0,
        alpha=0,
        guidance_scale=dials.guidance_scale,
        num_inference_steps=dials.num_inference_steps,
    )


def make_missing(
    shots: Sequence[Shot], generator: Generator, batch_size: int, cost_file: Path | None = None
) -> int:
    """Makes the pictures that are not there yet; returns how many that were.

    Args:
        shots: All pictures; one that belongs to several series is made once.
        generator: Makes them.
        batch_size: How many at once.
        cost_file: Where seconds and memory are added up, over all calls.

    Raises:
        ValueError: The generator gave another number of pictures than asked for.
    """
    wanted = {shot.path: shot for shot in shots}
    missing = [shot for path, shot in wanted.items() if not path.is_file()]
    if len(missing) < len(wanted):
        logger.info("%d of %d pictures are there already", len(wanted) - len(missing), len(wanted))
    with Progress("evaluate", len(missing), "pictures") as progress:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            begun = time.perf_counter()
            pictures = generator(batch)
            seconds = time.perf_counter() - begun
            if len(pictures) != len(batch):
                raise ValueError(f"the generator gave {len(pictures)} pictures for {len(batch)} seeds")
            for shot, picture in zip(batch, pictures, strict=True):
                save_png(picture, shot.path)
            if cost_file is not None:
                add_cost(cost_file, len(batch), seconds, warm=start > 0)
            progress.advance(len(batch))
    return len(missing)


def add_cost(file: Path, pictures: int, seconds: float, *, warm: bool) -> None:
    """Adds a batch to the account of what pictures cost: a second look at the same pictures tells the same.

    Args:
        file: JSON with `pictures`, `seconds` (of warm batches, where there are any) and `peak_gb`.
        pictures: Of the batch.
        seconds: Wall time of the batch.
        warm: False for the first batch of a process, in which caches are filled: it counts only while there
            is no other.
    """
    cost = read_cost(file) or {"pictures": 0, "seconds": 0.0, "warm": False, "peak_gb": 0.0}
    if warm and not cost["warm"]:
        cost |= {"pictures": 0, "seconds": 0.0, "warm": True}
    if warm == cost["warm"]:
        cost |= {"pictures": cost["pictures"] + pictures, "seconds": round(cost["seconds"] + seconds, 4)}
    device, peak_gb = peak_memory()
    cost |= {"device": device, "peak_gb": round(max(cost["peak_gb"], peak_gb), 3)}
    write_text_atomic(file, json.dumps(cost, indent=1) + "\n")


def read_cost(file: Path) -> dict[str, Any] | None:
    """Returns the account, None where none was kept."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def load_pictures(shots: Sequence[Shot]) -> list[NDArray[np.uint8]]:
    """Reads the pictures back, (H, W, 3) RGB each: what is judged is what lies on disk."""
    pictures = []
    for shot in shots:
        with Image.open(shot.path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    return pictures
