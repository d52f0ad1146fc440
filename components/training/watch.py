"""What is looked at during a run and at its end: `reference_gain`, the grid of pictures, identity in them."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.training.batch import FIELDS
from components.training.job import Job
from components.training.prompts import Prompts
from components.training.samples import one_a_person, picture_grid, sample_pictures
from components.training.similarity import PictureIdentity, Similarity
from components.training.tracking import Tracker
from components.training.validation import GainReport, ReferenceGain

logger = logging.getLogger(__name__)


class Watch:
    """Measures and draws with the model of a run; every method is called by all ranks together.

    Args:
        job: The run.
        engine: DeepSpeed engine around `PhotoVerseModel`.
        vae: Frozen.
        noise_scheduler: The base's schedule.
        prompts: Token rows of the training prompt.
        device: Where the model is.
        dtype: Of the model.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self, job: Job, engine: Any, vae: Any, noise_scheduler: Any, prompts: Prompts, device: torch.device,
        dtype: torch.dtype, rank: int, world_size: int,
    ) -> None:  # fmt: skip
        self._job, self._engine, self._vae, self._noise_scheduler = job, engine, vae, noise_scheduler
        self._prompts, self._device, self._dtype = prompts, device, dtype
        self._rank, self._world_size = rank, world_size
        self._loaded: dict[str, list[dict[str, Any]]] = {}
        base = Path(job.model.base)
        self._identity = PictureIdentity(job.face, base if base.is_dir() else None)

    def _samples(self, split: str) -> list[dict[str, Any]]:
        """Samples of people that are not trained on; where a split is empty, the other one serves."""
        from components.shards import load_split

        counts = self._job.manifest.samples
        held = next((name for name in (split, "heldout", "validation") if counts.get(name)), None)
        if held is None:
            raise ValueError(f"the shards hold neither validation nor held-out people: {counts}")
        if held not in self._loaded:
            self._loaded[held] = load_split(self._job.manifest, held, (*FIELDS, "target.png"))
        return self._loaded[held]

    def measure(self, split: str, step: int, tracker: Tracker | None) -> GainReport:
        """Returns `reference_gain` on a split's people and logs it on rank 0."""
        job = self._job
        measurement = ReferenceGain(
            job.config, self._samples(split), self._prompts, self._noise_scheduler,
            self._vae.config.scaling_factor, job.runtime.seed,
        )  # fmt: skip
        self._engine.eval()
        gain = measurement.measure(self._engine, self._device, self._dtype, self._rank, self._world_size)
        self._engine.train()
        if tracker is not None:
            low, high = (100 * bound for bound in gain.interval)
            logger.info("step %d: reference_gain %.1f%% (%.1f to %.1f)", step, 100 * gain.gain, low, high)
            tracker.log(step, gain.figures(split))
        return gain

    def draw(self, step: int, tracker: Tracker | None) -> Similarity | None:
        """Draws the grid of sample pictures, the people dealt out to the ranks; rank 0 keeps it.

        Returns:
            How much identity its pictures keep, the same on every rank; None if that cannot be measured.
        """
        config = self._job.config
        people = one_a_person(self._samples("validation"), config.validation.sample_people)
        if not people:
            return None
        alone = config.zero_stage == 3  # a forward pass needs all ranks: each draws everybody
        mine = people if alone else people[self._rank :: self._world_size]
        pictures = None
        if mine:
            self._engine.eval()
            pictures = sample_pictures(
                self._engine, self._vae, self._noise_scheduler, mine, self._prompts, config,
                self._job.runtime.seed, self._device, self._dtype,
            )  # fmt: skip
            self._engine.train()
        gathered: list[Any] = [None] * self._world_size
        torch.distributed.all_gather_object(gathered, pictures)
        similarity: list[Similarity | None] = [None]
        if tracker is not None:
            parts = 1 if alone else self._world_size
            rows = np.stack([gathered[i % parts][i // parts] for i in range(len(people))])
            grid = picture_grid([person["target.png"] for person in people], rows)
            tracker.log_image(grid, f"step_{step:06d}.png")
            similarity[0] = self._identity.measure(rows, [person["identity.npy"] for person in people])
            if similarity[0] is not None:
                figures = {"identity_similarity": similarity[0].mean, "face_found": similarity[0].found}
                tracker.log(step, figures)
        torch.distributed.broadcast_object_list(similarity, src=0)
        return similarity[0]
