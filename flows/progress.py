"""What a stage's lines say about its progress, and who wants to know: Prefect's page, the demo's terminal."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LINE = re.compile(
    r"(?P<label>[\w. -]*\w) \[(?P<bar>[#-]{10,40})\] (?P<done>\d+)/(?P<total>\d+) (?P<rest>.*)$"
)


@dataclass(frozen=True)
class Step:
    """One report of progress.

    Attributes:
        stage: Name of the stage.
        done: Units finished, in the stage's own unit.
        total: Units in all; 0 if not known.
        text: The line to show, without time stamps.
        state: "started", "running", "done", "kept" or "failed".
    """

    stage: str
    done: int = 0
    total: int = 0
    text: str = ""
    state: str = "running"


Listener = Callable[[Step], None]
_listeners: list[Listener] = []


def parse(stage: str, line: str) -> Step | None:
    """Returns what a log line tells of progress, or None: `... prepare [####----] 3/10 photos 2.1/s`."""
    found = LINE.search(line)
    if not found:
        return None
    label = found["label"].rsplit(": ", 1)[-1].strip()
    text = f"{label} [{found['bar']}] {found['done']}/{found['total']} {found['rest']}"
    return Step(stage, int(found["done"]), int(found["total"]), text)


def tell(step: Step) -> None:
    """Hands a step to everybody who listens."""
    for listener in list(_listeners):
        listener(step)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Lets `listener` hear of every step of this process's flows for the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
