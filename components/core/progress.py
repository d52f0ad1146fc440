"""Progress of long work: one line with a bar, counts and time left; off a terminal, log lines."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Self, TypeVar

T = TypeVar("T")
LOGGED_EVERY_S = 60.0
"""Off a terminal a line is logged at each tenth of the work, and after this time without one."""
logger = logging.getLogger(__name__)


class Progress:
    """Counts work towards a total and shows it.

    Args:
        label: What is being done, e.g. "prepare".
        total: Number of units, or None if not known.
        unit: What is counted, e.g. "photos".
    """

    def __init__(self, label: str, total: int | None, unit: str = "items") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.count, self._start, self._tenth = 0, time.monotonic(), 0
        self._shown = self._start
        self._terminal = sys.stderr.isatty()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Adds `n` finished units; `note` is shown at the end of the line."""
        self.count += n
        tenth = self.count * 10 // self.total if self.total else 0
        waited = time.monotonic() - self._shown
        if self._terminal and (waited > 0.2 or self.count == self.total):
            sys.stderr.write(f"\r\x1b[K{self.line(note)}")
            sys.stderr.flush()
        elif not self._terminal and (tenth > self._tenth or waited > LOGGED_EVERY_S):
            logger.info("%s", self.line(note))
        else:
            return
        self._shown, self._tenth = time.monotonic(), tenth

    def line(self, note: str = "") -> str:
        """Returns the progress line, e.g. `train [#####-----] 150/300 steps 3.1/s, 0:48 left`."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self.count / elapsed
        if not self.total:
            return f"{self.label} {self.count} {self.unit}, {rate:.1f}/s {note}".rstrip()
        filled = min(20, 20 * self.count // self.total)
        left = max(self.total - self.count, 0) / rate if rate else 0.0
        bar = "#" * filled + "-" * (20 - filled)
        clock = f"{int(left) // 60}:{int(left) % 60:02d} left"
        counts = f"{self.count}/{self.total} {self.unit} {rate:.1f}/s"
        return f"{self.label} [{bar}] {counts}, {clock} {note}".rstrip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._terminal:
            sys.stderr.write("\n")


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "items") -> Iterator[T]:
    """Yields the items, showing progress as they are taken."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
