"""Two places to run one stage command: a child process on this machine, or a job on a Ray cluster.

The flow process itself never drives Ray: `ray.init` replaces Prefect's SIGTERM handler, and a cancelled run
would crash or hang. Both runners stream the stage's lines, end the stage when the flow is cancelled, and
raise `StageFailed` with the stage's last lines. What a stage does is not here; see `flows/stage_table.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.core import SharedStore

REFUSED = 2
"""Exit code of a stage whose input or config is at fault: trying again cannot help."""

TAIL_LINES = 15
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

NOISE = re.compile(r"PlacementGroupCleaner.*Failed to query Ray Train Controller")
"""Lines for the log file alone: Ray repeats this one each second where it has no dashboard."""

OnLine = Callable[[str], None]


class StageFailed(RuntimeError):
    """A stage ended with an error.

    Attributes:
        stage: Its name.
        code: Its exit code, None when it ran out of time or its cluster lost it.
    """

    def __init__(self, stage: str, reason: str, tail: list[str], code: int | None = None) -> None:
        self.stage, self.code = stage, code
        lines = "".join(f"\n  | {line}" for line in tail)
        super().__init__(f"stage {stage!r} {reason}" + (f"; its last lines:{lines}" if tail else ""))

    @property
    def retryable(self) -> bool:
        """Whether another try may help: not when the stage said that its input or config is at fault."""
        return self.code != REFUSED


@dataclass(frozen=True)
class StageCall:
    """One run of `photoverse stage`.

    Attributes:
        stage: Name of the stage.
        config_file: The run's resolved config.
        record_file: Where the stage writes its record.
        log_file: Where every line of the stage is kept.
        threads: Threads for each numeric library of the process.
        local_base: The base model is a local folder, so hubs are never asked.
        timeout_s: Seconds after which the stage is ended as failed; None waits for ever.
        store: What the stage's node shares with this one, where it has not this one's files.
    """

    stage: str
    config_file: Path
    record_file: Path
    log_file: Path
    threads: int = 1
    local_base: bool = True
    timeout_s: float | None = None
    store: SharedStore | None = None

    def arguments(self) -> list[str]:
        """Returns what follows `python` on the command line, the same for every runner."""
        config, out = str(self.config_file), str(self.record_file)
        words = ["-m", "flows.cli", "stage", self.stage, "--config", config, "--out", out]
        return words if self.store is None else [*words, "--store", self.store.url, "--root", self.store.root]


class Runner(Protocol):
    """Runs a stage to its end."""

    def run(self, call: StageCall, on_line: OnLine) -> None:
        """Returns when the stage has ended well, raises `StageFailed` when it has not."""


def make_runner(kind: str, ray_address: str | None = None) -> Runner:
    """Returns the runner of that name.

    Raises:
        ValueError: The name is not known, or the cluster's address is missing.
    """
    if kind == "local":
        from flows.local_runner import LocalRunner

        return LocalRunner()
    if kind == "ray-job":
        if not ray_address:
            raise ValueError("runner 'ray-job' needs ray_address, e.g. http://head:8265")
        from flows.ray_job_runner import RayJobRunner

        return RayJobRunner(ray_address)
    raise ValueError(f"runner {kind!r} is not known; allowed: local, ray-job")
