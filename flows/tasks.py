"""A stage as a Prefect task: run it, stream its log, show progress and results in Prefect's pages."""

import time
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from components.core import Record
from flows import progress
from flows.artifacts import publish
from flows.config import PipelineConfig
from flows.environment import PROJECT
from flows.runners import StageCall, StageFailed, make_runner
from flows.stage_store import store_of
from flows.stage_table import threads_for
from flows.stages import collect, finished

RETRIES = {"portraits": 0, "prepare": 2, "train": 2, "evaluate": 1, "promote": 1, "personalize": 2}
"""Tries after the first. Stages go on where they stopped, so a lost node costs little."""


def _worth_retrying(task_: Any, run: Any, state: Any) -> bool:
    """A stage that refused its input or config would refuse it again."""
    return getattr(state.data, "retryable", True)


@task(
    cache_policy=NO_CACHE,  # a stage knows by itself whether its work is done; Prefect sees no file contents
    task_run_name="{name}",
    retry_delay_seconds=10,
    retry_condition_fn=_worth_retrying,
    persist_result=False,
)
def run_stage(name: str, config: PipelineConfig, config_file: Path, label: str | None = None) -> Record:
    """Runs one stage to its end and returns its record.

    Args:
        name: Name of the stage.
        config: The run's config.
        config_file: Where it is stored; records/ and logs/ are beside it.
        label: What to call it in Prefect's pages and in the terminal; None: its name.

    Raises:
        StageFailed: The stage ended with an error; the message holds its last lines.
    """
    label = label or name
    out = config_file.parent / "records" / f"{name}.json"
    logger = get_run_logger()
    if kept := finished(name, config, out):
        logger.info("%s: done before, kept", label)
        progress.tell(progress.Step(label, kept.count_out, kept.count_out, state="kept"))
        return kept
    call = StageCall(
        stage=name,
        config_file=config_file,
        record_file=out,
        log_file=config_file.parent / "logs" / f"{name}.log",
        threads=threads_for(name, config),
        local_base=(PROJECT / config.model.base).is_dir(),
        timeout_s=config.runner.timeout_s,
        store=store_of(config),
    )
    with _Page(label) as page:

        def on_line(line: str) -> None:
            logger.info("%s", line)
            if step := progress.parse(label, line):
                page.show(step)

        make_runner(config.runner.kind, config.runner.ray_address).run(call, on_line)
    record = collect(name, config, out)
    progress.tell(progress.Step(label, record.count_out, record.count_out, state="done"))
    return record


class _Page:
    """The stage's progress bar in Prefect's page, and the word to everybody else who listens."""

    def __init__(self, name: str) -> None:
        self.name, self._shown = name, 0.0
        self._id: UUID | None = None

    def __enter__(self) -> "_Page":
        progress.tell(progress.Step(self.name, state="started"))
        self._id = cast(UUID, create_progress_artifact(progress=0.0, key=f"{self.name}-progress"))
        return self

    def show(self, step: progress.Step) -> None:
        progress.tell(step)
        if self._id and time.monotonic() - self._shown > 3:  # each update is a call to the server
            self._shown = time.monotonic()
            percent = 100 * step.done / max(step.total, 1)
            update_progress_artifact(self._id, progress=min(percent, 100.0), description=step.text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None and self._id:
            update_progress_artifact(self._id, progress=100.0, description=f"{self.name}: done")
        elif isinstance(error, StageFailed):
            progress.tell(progress.Step(self.name, state="failed", text=str(error)))


def stage(name: str, config: PipelineConfig, config_file: Path) -> Any:
    """Runs one stage as a task of the current flow, publishes its figures, and returns its record."""
    record = run_stage.with_options(name=name, retries=RETRIES[name])(name, config, config_file)
    publish(name, record)
    return record
