"""`reference_gain`: how much the reference photo helps to denoise pictures of people never trained on.

For each held-out photo the diffusion loss is measured twice at the same timesteps with the same noise: with
the right photo as reference, and with the photo of another person. The gain is (swapped - right) / right,
over all people; its interval comes from resampling people. Zero means that the reference is ignored,
however low the loss is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.core import derive_seed
from components.training.config import TrainConfig
from components.training.losses import eq2_diffusion_loss
from components.training.objective import prediction_target, sample_latents, sample_noise
from components.training.prompts import Prompts

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class GainReport:
    """Result over held-out people.

    Attributes:
        gain: (swapped - right) / right of the mean losses.
        interval: 95% bootstrap interval over people.
        other_view_gain: The same with another photo of the right person as reference; None if nobody has
            two. It tells identity from the copying of the very photo.
        by_timestep: Gain at each timestep.
        loss_right: Mean diffusion loss with the right photo.
        loss_swapped: Mean diffusion loss with another person's photo.
        people: Number of people.
    """

    gain: float
    interval: tuple[float, float]
    other_view_gain: float | None
    by_timestep: dict[int, float]
    loss_right: float
    loss_swapped: float
    people: int

    def figures(self, split: str) -> dict[str, float]:
        """Returns the report as metrics by name."""
        low, high = self.interval
        figures = {"reference_gain": self.gain, "reference_gain_low": low, "reference_gain_high": high}
        if self.other_view_gain is not None:
            figures["reference_gain_other_view"] = self.other_view_gain
        by_timestep = {f"reference_gain_t{timestep:04d}": gain for timestep, gain in self.by_timestep.items()}
        return figures | by_timestep | {f"{split}_loss": self.loss_right}

    def plain(self) -> dict[str, Any]:
        """Returns the report as JSON values, for the run's outcome."""
        return {
            "reference_gain": self.gain,
            "reference_gain_interval": list(self.interval),
            "reference_gain_other_view": self.other_view_gain,
            "by_timestep": self.by_timestep,
            "heldout_loss": self.loss_right,
            "people": self.people,
        }


@dataclass(frozen=True)
class Pairing:
    """Which photo is the reference of which: indices into the samples.

    Attributes:
        samples: (S,) photos to denoise, `references_right` are themselves.
        swapped: (S,) a photo of another person.
        other_view: (S,) another photo of the same person, -1 if there is none.
        person: (S,) index of the person.
    """

    samples: NDArray[np.int64]
    swapped: NDArray[np.int64]
    other_view: NDArray[np.int64]
    person: NDArray[np.int64]


def pair_people(people: Sequence[str], limit: int | None = None) -> Pairing:
    """Pairs each photo with one of another person, and with another one of the same person; a pure function.

    People are ordered by a hash of their name and paired in a circle, so that each is somebody's wrong
    reference once.

    Args:
        people: Person of each sample.
        limit: Use at most so many people.

    Raises:
        ValueError: There are fewer than two people.
    """
    names = sorted(set(people), key=lambda name: derive_seed("pair", name))[:limit]
    if len(names) < 2:
        raise ValueError(f"reference_gain needs photos of at least two people, found {len(names)}")
    photos = {name: [i for i, person in enumerate(people) if person == name] for name in names}
    rows = []
    for number, name in enumerate(names):
        wrong = photos[names[(number + 1) % len(names)]]
        for view, sample in enumerate(photos[name]):
            others = [photo for photo in photos[name] if photo != sample]
            rows.append(
                (sample, wrong[view % len(wrong)], others[view % len(others)] if others else -1, number)
            )
    return Pairing(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


def relative_gain(right: Losses, swapped: Losses) -> float:
    """Returns (mean swapped - mean right) / mean right."""
    return float(swapped.mean() / right.mean() - 1)


def bootstrap_interval(right: Losses, swapped: Losses, resamples: int, seed: int) -> tuple[float, float]:
    """Returns the 95% percentile interval of `relative_gain` over people.

    Args:
        right: (P,) mean loss of each person with the right reference.
        swapped: (P,) with the wrong one.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    picks = rng.integers(len(right), size=(resamples, len(right)))
    gains = swapped[picks].mean(axis=1) / right[picks].mean(axis=1) - 1
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


def summarise(
    pairing: Pairing, timesteps: NDArray[np.int64], losses: dict[str, Losses], resamples: int, seed: int
) -> GainReport:
    """Turns losses (S, K) by kind of reference ("right", "swapped", "other_view") into the report."""
    right, swapped, other = losses["right"], losses["swapped"], losses["other_view"]
    count = np.bincount(pairing.person)
    right_of = np.bincount(pairing.person, weights=right.mean(axis=1)) / count
    swapped_of = np.bincount(pairing.person, weights=swapped.mean(axis=1)) / count
    views = pairing.other_view >= 0
    return GainReport(
        gain=relative_gain(right_of, swapped_of),
        interval=bootstrap_interval(right_of, swapped_of, resamples, seed),
        other_view_gain=relative_gain(other[views], swapped[views]) if views.any() else None,
        by_timestep={int(t): relative_gain(right[:, k], swapped[:, k]) for k, t in enumerate(timesteps)},
        loss_right=float(right.mean()),
        loss_swapped=float(swapped.mean()),
        people=len(count),
    )


class ReferenceGain:
    """Measures `reference_gain` with the work shared among the ranks.

    Args:
        config: The run.
        samples: Decoded samples of people that are not trained on, with features and latents.
        prompts: Token rows of the training prompt.
        noise_scheduler: The base's schedule.
        scaling_factor: Of the VAE.
        seed: The run's seed: every measurement of a run uses the same noise.

    Raises:
        ValueError: There are fewer than two people.
    """

    def __init__(
        self,
        config: TrainConfig,
        samples: Sequence[dict[str, Any]],
        prompts: Prompts,
        noise_scheduler: Any,
        scaling_factor: float,
        seed: int,
    ) -> None:
        self._config, self._samples, self._prompts = config, samples, prompts
        self._noise_scheduler, self._scaling_factor, self._seed = noise_scheduler, scaling_factor, seed
        people = [sample["meta.json"]["person"] for sample in samples]
        self.pairing = pair_people(people, config.validation.people)
        total, count = len(noise_scheduler.alphas_cumprod), config.validation.timesteps
        self.timesteps = ((np.arange(count) + 0.5) / count * total).astype(np.int64)

    @torch.no_grad()
    def measure(
        self, predict: Any, device: torch.device, dtype: torch.dtype, rank: int, world_size: int
    ) -> GainReport:
        """Returns the report, the same on every rank; all ranks must call it.

        Args:
            predict: `PhotoVerseModel` or the engine around it.
            device: Where the model is.
            dtype: Of the model.
            rank: This worker.
            world_size: Number of workers.
        """
        pairs = self.pairing
        references = {"right": pairs.samples, "swapped": pairs.swapped, "other_view": pairs.other_view}
        losses = {}
        for kind, reference in references.items():
            reference = np.where(reference < 0, pairs.samples, reference)
            units = [(s, r, t) for s, r in zip(pairs.samples, reference, strict=True) for t in self.timesteps]
            found = self._share_of_losses(predict, units, device, dtype, rank, world_size)
            losses[kind] = found.reshape(len(pairs.samples), len(self.timesteps))
        resamples = self._config.validation.bootstrap
        return summarise(pairs, self.timesteps, losses, resamples, self._seed)

    def _share_of_losses(
        self, predict: Any, units: list[tuple[int, int, int]], device: torch.device, dtype: torch.dtype,
        rank: int, world_size: int,
    ) -> Losses:  # fmt: skip
        """Loss of each (sample, reference, timestep); ranks run equally many passes, as ZeRO 3 needs."""
        size = self._config.validation.batch_size
        per_rank = -(-len(units) // world_size)
        losses = torch.zeros(len(units), dtype=torch.float64, device=device)
        for start in range(0, per_rank, size):
            numbers = np.arange(start, min(start + size, per_rank)) * world_size + rank
            kept = np.minimum(numbers, len(units) - 1)  # a rank with less to do repeats the last unit
            found = self._losses(predict, [units[i] for i in kept], device, dtype)
            real = numbers < len(units)
            for number, loss in zip(kept[real], found[: real.sum()].double(), strict=True):
                losses[number] = loss
        torch.distributed.all_reduce(losses)
        return losses.cpu().numpy()

    def _losses(
        self, predict: Any, units: list[tuple[int, int, int]], device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        chosen, references, steps = zip(*units, strict=True)
        moments = torch.from_numpy(np.stack([self._samples[i]["latents.npy"] for i in chosen]))
        features = torch.from_numpy(np.stack([self._samples[i]["features.npy"] for i in references]))
        keys = [f"{self._samples[i]['__key__']} {t}" for i, t in zip(chosen, steps, strict=True)]
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        noise = sample_noise(self._seed, "validation", keys, shape, "noise").to(device, dtype)
        posterior = sample_noise(self._seed, "validation", keys, shape, "posterior").to(device, dtype)
        latents = sample_latents(moments.to(device, dtype), posterior, self._scaling_factor)
        timesteps = torch.tensor(steps, dtype=torch.int64, device=device)
        noisy = self._noise_scheduler.add_noise(latents, noise, timesteps)
        ids, positions = (rows.to(device) for rows in self._prompts.rows([None] * len(units)))
        ones = torch.ones(len(units), device=device, dtype=dtype)
        prediction = predict(
            noisy, timesteps, ids, positions, features.to(device, dtype), ones, ones, self._config.alpha
        )
        target = prediction_target(self._noise_scheduler, latents, noise, timesteps)
        return eq2_diffusion_loss(prediction.noise_pred, target)
