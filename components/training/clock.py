"""How fast a run goes and what it takes: throughput, wait for data, memory and cost, row by row."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from components.core import peak_memory


class Clock:
    """Counts steps and time.

    Args:
        batch_size: Samples of a step, over all workers.
        price_per_hour: Of all workers together; None tells no cost.
        seconds_before: What the run has taken already, before it was resumed.
    """

    def __init__(
        self, batch_size: int, price_per_hour: float | None = None, seconds_before: float = 0.0
    ) -> None:
        self._batch_size, self._price, self._before = batch_size, price_per_hour, seconds_before
        self._started = time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self.steps, self._start, self._waited, self._away = 0, time.perf_counter(), 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, with checkpoints and validation; lost attempts do not count."""
        return self._before + time.perf_counter() - self._started

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
            "memory_gb": peak_memory()[1],
        }
        if self._price is not None:
            figures["cost"] = self._price * self.seconds / 3600
        self._reset()
        return figures
