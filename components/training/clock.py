"""How fast a run goes: throughput and the share of time spent waiting for data, row by row."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Counts steps and time.

    Args:
        batch_size: Samples of a step, over all workers.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self.steps, self._start, self._waited, self._away = 0, time.perf_counter(), 0.0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this block is a wait for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in this block (checkpoints, validation) does not count."""
        start = time.perf_counter()
        yield
        self._away += time.perf_counter() - start

    def figures(self) -> dict[str, float]:
        """Returns the figures of the interval and starts a new one."""
        seconds = max(time.perf_counter() - self._start - self._away, 1e-9)
        figures = {
            "samples_per_second": self.steps * self._batch_size / seconds,
            "step_seconds": seconds / max(1, self.steps),
            "data_wait_share": self._waited / seconds,
        }
        self._reset()
        return figures
