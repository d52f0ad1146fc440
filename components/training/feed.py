"""From shards to tensors: this worker's part of each global batch with its draws, read ahead in a thread.

What a step sees is a function of (seed, step) and of positions in the global batch, so it can start at any
step and with any number of workers.
"""

import queue
import threading
from collections.abc import Generator
from typing import Any

import numpy as np

from components.training.batch import FEATURES, FIELDS, StepInputs, step_inputs
from components.training.config import TrainConfig
from components.training.job import Job
from components.training.objective import draw_step
from components.training.prompts import Prompts

AHEAD = 2  # steps that are prepared while the current one runs

Ready = queue.Queue[StepInputs | BaseException]


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
