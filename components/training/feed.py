"""From shards to tensors: this worker's part of each global batch with its draws, read ahead in a thread.

What a step sees is a function of (seed, step) and of positions in the global batch, so it can start at any
step and with any number of workers. Features and latents come from the shards: no image encoder and no VAE
run here.
"""

import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from components.core import face_weight
from components.shards import OTHER
from components.training.config import LossConfig, TrainConfig
from components.training.job import Job
from components.training.objective import Draws, draw_step, sample_noise
from components.training.prompts import Prompts

FEATURES = "features.npy"
FIELDS = (FEATURES, "latents.npy", "identity.npy")
AHEAD = 2  # steps that are prepared while the current one runs


EXACT = {"landmarks_xy", "identity", "share", "face_share", "place_weight"}
"""Float32 whatever the model computes in."""


@dataclass(frozen=True)
class FromNoise:
    """Samples that are drawn from noise for the sampled identity loss, as tensors.

    Attributes:
        noise: (n, C, h, w) what the pictures start from.
        input_ids: (n, L) int64: the training prompt or the photo's own.
        word_positions: (n, L) int64, see `PromptTokens`.
        empty_ids: (n, L) int64, the empty prompt, for guidance.
        empty_positions: (n, L) int64.
        features: (n, m, T, D).
        identity: (n, D_id) of the reference photos.
        landmarks_xy: (n, 5, 2) pixels of the target picture, where none are found in the drawn one.
        share: () 1 / number of such samples in the global batch.
    """

    noise: Tensor
    input_ids: Tensor
    word_positions: Tensor
    empty_ids: Tensor
    empty_positions: Tensor
    features: Tensor
    identity: Tensor
    landmarks_xy: Tensor
    share: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Returns the samples on a device, floating tensors in `dtype` but for `EXACT`."""
        return type(self)(**_moved(self, device, dtype))


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one forward pass, as tensors.

    Attributes:
        moments: (B, 2C, h, w) mean and std of the VAE's posterior, unscaled.
        posterior_noise: (B, C, h, w).
        noise: (B, C, h, w).
        timesteps: (B,) int64.
        input_ids: (B, L) int64: the training prompt, the photo's own, or the empty one.
        word_positions: (B, L) int64, see `PromptTokens`.
        features: (B, m, T, D).
        gamma: (B,) weight of the text branch.
        sigma: (B,) weight of the visual branch.
        face_rows: (n,) int64, rows of the batch that take part in the identity loss.
        face_share: () 1 / number of such samples in the global batch.
        identity: (n, D_id) of the reference photos.
        landmarks_xy: (n, 5, 2) pixels of the target picture.
        from_noise: What the sampled identity loss draws; None where it draws nothing.
        place_weight: (B, 1, h, w) what each place counts in the diffusion term; None counts all alike.
    """

    moments: Tensor
    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor
    input_ids: Tensor
    word_positions: Tensor
    features: Tensor
    gamma: Tensor
    sigma: Tensor
    face_rows: Tensor
    face_share: Tensor
    identity: Tensor
    landmarks_xy: Tensor
    from_noise: FromNoise | None = None
    place_weight: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Returns the batch on a device, floating tensors in `dtype` but for `EXACT`."""
        return type(self)(**_moved(self, device, dtype))


def _moved(batch: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of a batch on a device."""
    moved: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            cast = value.is_floating_point() and field.name not in EXACT
            moved[field.name] = value.to(device, dtype if cast else None, non_blocking=True)
        else:
            moved[field.name] = None if value is None else value.to(device, dtype)
    return moved


@dataclass(frozen=True)
class StepInputs:
    """Everything a worker needs for one optimizer step.

    Attributes:
        step: Global batch, from 0.
        micro_batches: What to compute.
        keys: Names of this worker's samples, for messages.
        position: Place of the reader after this batch.
    """

    step: int
    micro_batches: tuple[MicroBatch, ...]
    keys: tuple[str, ...]
    position: int = 0


Ready = queue.Queue[StepInputs | BaseException]


def step_inputs(
    sample: dict[str, Any],
    draws: Draws,
    positions: np.ndarray,
    config: TrainConfig,
    seed: int,
    step: int,
    prompts: Prompts,
    vae_scale_factor: int,
) -> MicroBatch:
    """Builds the tensors of some samples of global batch `step`.

    Args:
        sample: Field name -> stacked arrays of these samples, as the reader gives them.
        draws: Those of the whole global batch.
        positions: (B,) places of these samples in the global batch.
        config: The run.
        seed: The run's seed.
        step: Global batch, from 0.
        prompts: Token rows.
        vae_scale_factor: Pixels of a picture along the side of one latent.
    """
    mine = draws.at(positions)
    moments = torch.from_numpy(sample["latents.npy"])
    shape = (moments.shape[1] // 2, *moments.shape[2:])
    places = [int(position) for position in positions]
    noise = sample_noise(seed, step, places, shape, "noise")
    if config.losses.noise_offset:
        offset = sample_noise(seed, step, places, (shape[0], 1, 1), "offset")
        noise = noise + config.losses.noise_offset * offset
    ids, word_positions = prompts.rows(_prompts_of(mine, sample["meta.json"]))
    rows = np.flatnonzero(mine.face)
    landmarks = np.array([meta["target_landmarks_xy"] for meta in sample["meta.json"]], dtype=np.float32)
    return MicroBatch(
        moments=moments,
        posterior_noise=sample_noise(seed, step, places, shape, "posterior"),
        noise=noise,
        timesteps=torch.from_numpy(mine.timesteps),
        input_ids=ids,
        word_positions=word_positions,
        features=torch.from_numpy(_features_of(mine, sample)),
        gamma=torch.from_numpy(mine.gamma),
        sigma=torch.from_numpy(mine.sigma),
        face_rows=torch.from_numpy(rows),
        face_share=torch.tensor(1 / max(1, mine.face_count)),
        identity=torch.from_numpy(sample["identity.npy"][rows]),
        landmarks_xy=torch.from_numpy(landmarks[rows]),
        from_noise=_from_noise(sample, mine, positions, config, seed, step, prompts),
        place_weight=_place_weight(landmarks, shape[-1], vae_scale_factor, config.losses),
    )


def _place_weight(
    landmarks_xy: np.ndarray, side: int, vae_scale_factor: int, config: LossConfig
) -> Tensor | None:
    """(B, 1, side, side) over latents, of target pictures with these landmarks; None if all count alike."""
    if not (config.face_weight or config.mouth_weight):
        return None
    places = (landmarks_xy + 0.5) / vae_scale_factor - 0.5  # pixel centres to latent centres
    return torch.from_numpy(face_weight(places, side, config.face_weight, config.mouth_weight))


def _from_noise(
    sample: dict[str, Any], draws: Draws, positions: np.ndarray, config: TrainConfig, seed: int, step: int,
    prompts: Prompts,
) -> FromNoise | None:  # fmt: skip
    """What the sampled identity loss draws of these samples: each n-th of the global batch."""
    n = config.sampled_face.every_n_samples
    rows = np.flatnonzero(positions % n == 0)
    if not config.sampled_face.due(step) or not len(rows):
        return None
    metas = [sample["meta.json"][row] for row in rows]
    ids, word_positions = prompts.rows(_own_prompts(draws.own_prompt[rows], metas))
    empty_ids, empty_positions = prompts.rows([""] * len(rows))
    moments = sample["latents.npy"]
    shape = (moments.shape[1] // 2, *moments.shape[2:])
    landmarks = np.array([meta["target_landmarks_xy"] for meta in metas], dtype=np.float32)
    return FromNoise(
        noise=sample_noise(seed, step, [int(position) for position in positions[rows]], shape, "from noise"),
        input_ids=ids,
        word_positions=word_positions,
        empty_ids=empty_ids,
        empty_positions=empty_positions,
        features=torch.from_numpy(_features_of(draws, sample)[rows]),
        identity=torch.from_numpy(sample["identity.npy"][rows]),
        landmarks_xy=torch.from_numpy(landmarks),
        share=torch.tensor(1 / -(-config.global_batch_size // n)),
    )


def _prompts_of(draws: Draws, metas: Sequence[dict[str, Any]]) -> list[str | None]:
    """Returns each sample's prompt; None is the training prompt."""
    own = _own_prompts(draws.own_prompt, metas)
    return ["" if dropped else prompt for dropped, prompt in zip(draws.dropped, own, strict=True)]


def _own_prompts(own_prompt: np.ndarray, metas: Sequence[dict[str, Any]]) -> list[str | None]:
    return [meta.get("prompt") if own else None for meta, own in zip(metas, own_prompt, strict=True)]


def _features_of(draws: Draws, sample: dict[str, Any]) -> np.ndarray:
    """Returns (B, m, T, D): of each sample's own photo, or of another one of the person."""
    if not draws.paired.any():
        return sample[FEATURES]
    return np.where(draws.paired[:, None, None, None], sample[OTHER + FEATURES], sample[FEATURES])


class Feed:
    """Endless `StepInputs` from `start_step` on, prepared ahead in a thread; iterate it, then close it.

    Args:
        reader: `ShardReader` of this rank (anything with `batches(start_step, position)` and `position`).
        config: The run.
        seed: The run's seed.
        num_train_timesteps: Length of the noise schedule.
        prompts: Token rows.
        vae_scale_factor: Pixels of a picture along the side of one latent.
        rank: This worker.
        world_size: Number of workers.
    """

    def __init__(
        self,
        reader: Any,
        config: TrainConfig,
        *,
        seed: int,
        num_train_timesteps: int,
        prompts: Prompts,
        vae_scale_factor: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._reader, self._config, self._seed = reader, config, seed
        self._timesteps, self._prompts = num_train_timesteps, prompts
        self._vae_scale_factor = vae_scale_factor
        share = config.global_batch_size // world_size
        self._first, self._micro = rank * share, config.micro_batch_size_of(world_size)
        self._accumulation = config.accumulation_steps_of(world_size)

    def read_as(self, in_memory: bool | None) -> bool:
        """Has the reader read as it did when the run began; None leaves it to the size of the shards."""
        if in_memory is not None:
            self._reader.in_memory = in_memory
        return self._reader.in_memory

    def prepare(self, batch: dict[str, Any], step: int) -> StepInputs:
        """Turns this rank's part of global batch `step` into tensors."""
        draws = draw_step(self._config, self._seed, step, self._timesteps)
        parts = []
        for i in range(self._accumulation):
            rows = slice(i * self._micro, (i + 1) * self._micro)
            part = {name: values[rows] for name, values in batch.items()}
            positions = self._first + np.arange(rows.start, rows.stop)
            parts.append(
                step_inputs(
                    part,
                    draws,
                    positions,
                    self._config,
                    self._seed,
                    step,
                    self._prompts,
                    self._vae_scale_factor,
                )
            )
        return StepInputs(step, tuple(parts), tuple(batch["__key__"]), self._reader.position)

    def steps(self, start_step: int, position: int | None = None) -> Generator[StepInputs, None, None]:
        """Yields the inputs of `start_step`, `start_step + 1`, ...; an error in the thread is raised here.

        Args:
            start_step: First global batch.
            position: Place of the reader before it, where shards have been left out.
        """
        ready: queue.Queue[StepInputs | BaseException] = queue.Queue(maxsize=AHEAD)
        stop = threading.Event()
        arguments = (ready, stop, start_step, position)
        thread = threading.Thread(target=self._fill, args=arguments, daemon=True, name="feed")
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _fill(self, ready: "Ready", stop: threading.Event, start_step: int, position: int | None) -> None:
        try:
            for step, batch in enumerate(self._reader.batches(start_step, position), start_step):
                if not self._put(ready, stop, self.prepare(batch, step)):
                    return
        except BaseException as error:  # noqa: B036 - handed to the training thread, which raises it
            self._put(ready, stop, error)

    def _put(self, ready: "Ready", stop: threading.Event, item: StepInputs | BaseException) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False


def make_feed(
    job: Job, prompts: Prompts, num_train_timesteps: int, vae_scale_factor: int, rank: int, world_size: int
) -> Feed:
    """Opens the training split for this rank."""
    from components.shards import ShardReader

    reader = ShardReader(
        job.manifest,
        "train",
        batch_size=job.config.global_batch_size,
        seed=job.runtime.seed,
        rank=rank,
        world_size=world_size,
        fields=FIELDS,
        others=(FEATURES,) if job.config.pairs else (),
        config=job.config.reader,
        left_out=job.left_out,
    )
    return Feed(
        reader,
        job.config,
        seed=job.runtime.seed,
        num_train_timesteps=num_train_timesteps,
        prompts=prompts,
        vae_scale_factor=vae_scale_factor,
        rank=rank,
        world_size=world_size,
    )
