"""Stages in a terminal: one line each, with a bar, counts and time; plain lines elsewhere."""

import sys
import threading
import time
from typing import TextIO

from flows.progress import Step

WORDS = {"done": "done", "kept": "kept (done before)", "failed": "FAILED"}


class Board:
    """Shows the stages of a run as they go.

    Args:
        stream: Where to write; a terminal is redrawn in place.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream, self._live = stream, stream.isatty()
        self._step: Step | None = None
        self._since, self._total, self._quarter = 0.0, 0, -1
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> "Board":
        if self._live:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()

    def __call__(self, step: Step) -> None:
        """Takes a step of progress."""
        with self._lock:
            if step.state == "started":
                self._step, self._since, self._total = step, time.monotonic(), 0
            elif step.state == "running":
                self._step = step
            else:
                self._finish(step)
                return
            self._draw(step)

    def _finish(self, step: Step) -> None:
        seconds = time.monotonic() - self._since if self._step else 0.0
        text = f"  {step.stage:<12} {WORDS[step.state]:<8} {clock(seconds)}" + f"  {step.done} out" * (
            step.done > 0
        )
        self._write(text, end=True)
        self._step = None

    def _draw(self, step: Step) -> None:
        if self._live:
            self._write(f"  {clock(time.monotonic() - self._since)}  {step.text or step.stage + ' starts'}")
        elif step.total:
            if step.total != self._total:  # a stage may have several things to count, one after the other
                self._total, self._quarter = step.total, -1
            if step.done * 4 // step.total > self._quarter:
                self._quarter = step.done * 4 // step.total
                self._write(f"  {step.text}", end=True)

    def _write(self, text: str, end: bool = False) -> None:
        if self._live:
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if end else ""))
        elif end:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _tick(self) -> None:
        """Keeps the clock of the running stage moving between its reports."""
        while not self._ended.wait(1):
            with self._lock:
                if self._step:
                    self._draw(self._step)


def clock(seconds: float) -> str:
    """Returns seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
