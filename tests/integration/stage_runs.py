"""A run whose stages a test calls one by one, as its flow does: same runner, same files, no Prefect."""

import json
from pathlib import Path
from typing import Any

from components.core import Record
from flows.config import PipelineConfig, open_run, resolve
from flows.environment import PROJECT
from flows.runners import StageCall, make_runner
from flows.stage_store import store_of
from flows.stage_table import threads_for
from flows.stages import collect


class StageRun:
    """One run.

    Args:
        profile: File of the profile.
        root: Folder of all runs.
        name: Name of the run.
        **settings: Over the profile's.
    """

    def __init__(self, profile: Path, root: Path, name: str = "run", **settings: Any) -> None:
        self.config: PipelineConfig = resolve(str(profile), {"root": str(root)} | settings, name=name)
        self.folder = PROJECT / self.config.folder
        self.lines: list[str] = []

    def stage(self, name: str, on_line: Any = None) -> Record:
        """Runs a stage where the config says and returns its record."""
        file = open_run(self.config, resume=True)
        out = self.folder / "records" / f"{name}.json"
        call = StageCall(
            name, file, out, self.folder / "logs" / f"{name}.log",
            threads=threads_for(name, self.config), local_base=(PROJECT / self.config.model.base).is_dir(),
            store=store_of(self.config),
        )  # fmt: skip
        runner = self.config.runner
        make_runner(runner.kind, runner.ray_address).run(call, on_line or self.lines.append)
        return collect(name, self.config, out)

    def rows(self) -> list[dict]:
        """Returns the log of training so far."""
        files = list((self.folder / "train").glob("*/metrics.jsonl"))
        lines = files[0].read_text().splitlines() if files else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def losses(self) -> dict[int, float]:
        """Returns the loss by step."""
        return {row["step"]: row["loss"] for row in self.rows() if "loss" in row}
