"""Submits a stage to a Ray cluster as a job."""

import shlex
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.environment import PROJECT, job_environment
from flows.runners import ANSI, TAIL_LINES, OnLine, StageCall, StageFailed

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

EXCLUDES = (
    "/.git/",
    "/.venv/",
    "/runs/",
    "/data/",
    "/tests/",
    "*.egg-info/",
    "__pycache__/",
    ".mypy_cache/",
    ".ruff_cache/",
)
"""What stays at home when the working tree goes to a cluster: it grows past Ray's limit otherwise."""


@dataclass(frozen=True)
class RayJobRunner:
    """Submits the same stage command to a Ray cluster.

    The run's root folder must be the same path on every node (a shared file system).

    Attributes:
        address: The head's job server, e.g. `http://head:8265`.
        poll_s: Seconds between two looks at the job's status.
        lost_after_s: How long the head's API may be away before the stage counts as failed.
        stop_within_s: Seconds that a stopped job has to end.
    """

    address: str
    poll_s: float = 2.0
    lost_after_s: float = 120.0
    stop_within_s: float = 30.0

    def run(self, call: StageCall, on_line: OnLine) -> None:
        """Submits the job, streams its lines, decides by its status and never by the stream's end."""
        from ray.job_submission import JobStatus, JobSubmissionClient

        client = JobSubmissionClient(self.address)
        job = client.submit_job(
            entrypoint=shlex.join(["python", *call.arguments()]),
            submission_id=f"photoverse-{call.stage}-{uuid.uuid4().hex[:8]}",
            runtime_env={
                "working_dir": str(PROJECT),
                "excludes": list(EXCLUDES),
                "env_vars": job_environment(threads=call.threads, local_base=call.local_base),
            },
        )
        call.log_file.parent.mkdir(parents=True, exist_ok=True)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        with call.log_file.open("a", encoding="utf-8") as log:

            def keep(line: str) -> None:
                log.write(line + "\n")
                log.flush()
                tail.append(line)
                on_line(line)

            try:
                info = self._watch(client, job, keep, call)
            except BaseException:
                self._stop(client, job)
                raise
        if info.status != JobStatus.SUCCEEDED:
            reason = f"ended as {info.status.value} on {self.address}: {info.message}"
            raise StageFailed(call.stage, reason, list(tail), code=info.driver_exit_code)

    def _watch(self, client: "JobSubmissionClient", job: str, keep: OnLine, call: StageCall) -> "JobDetails":
        """Polls until the job has ended, handing over new log lines; returns the job's last details."""
        start = seen_at = time.monotonic()
        shown = 0
        while True:
            try:
                info = client.get_job_info(job)
                text = client.get_job_logs(job)
                seen_at = time.monotonic()
            except (RuntimeError, ConnectionError, OSError) as error:
                if time.monotonic() - seen_at > self.lost_after_s:
                    raise StageFailed(
                        call.stage, f"was lost: {self.address} does not answer: {error}", []
                    ) from error
                time.sleep(self.poll_s)
                continue
            ended = info.status.is_terminal()
            whole = len(text) if ended else text.rfind("\n") + 1
            for line in text[shown:whole].splitlines():
                if clean := ANSI.sub("", line).rsplit("\r", 1)[-1].rstrip():
                    keep(clean)
            shown = max(shown, whole)
            if ended:
                return info
            if call.timeout_s and time.monotonic() - start > call.timeout_s:
                raise StageFailed(call.stage, f"ran longer than {call.timeout_s:g} s", [])
            time.sleep(self.poll_s * (1 + len(text) / 1e6))  # the API hands over the whole log each time

    def _stop(self, client: "JobSubmissionClient", job: str) -> None:
        with suppress(Exception):
            client.stop_job(job)
            deadline = time.monotonic() + self.stop_within_s
            while time.monotonic() < deadline and not client.get_job_status(job).is_terminal():
                time.sleep(0.5)
