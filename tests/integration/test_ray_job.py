"""The ray-job runner against a real Ray head: token, success, failure, cancel, and a head that is away."""

import textwrap
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import pytest

from flows.ray_job_runner import RayJobRunner
from flows.runners import StageCall, StageFailed
from tests.integration.ray_head import ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class ScriptCall(StageCall):
    script: str = ""

    def arguments(self):
        return ["-c", textwrap.dedent(self.script)]


@pytest.fixture(scope="module")
def head():
    with ray_head() as address:
        yield address


@pytest.fixture
def call(tmp_path):
    def make(script, **more):
        return ScriptCall("train", tmp_path / "c", tmp_path / "r", tmp_path / "log", script=script, **more)

    return make


def test_a_head_refuses_who_has_no_token(head):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head}/api/jobs/", timeout=20)


def test_a_job_runs_with_our_code_and_its_lines_arrive(head, call):
    lines = []
    script = (
        "import flows.runners, os, time\nfor i in range(5): print('line', i, flush=True); time.sleep(0.5)"
    )
    one = call(script)
    RayJobRunner(head, poll_s=0.5).run(one, lines.append)
    assert [line for line in lines if line.startswith("line")] == [f"line {i}" for i in range(5)]
    assert "line 4" in one.log_file.read_text()


def test_a_failed_job_reports_exit_code_and_last_lines(head, call):
    with pytest.raises(StageFailed, match="ended as FAILED") as caught:
        RayJobRunner(head, poll_s=0.5).run(
            call("print('the reason', flush=True); raise SystemExit(3)"), print
        )
    assert "the reason" in str(caught.value)
    assert caught.value.code == 3


def test_cancelling_and_timing_out_stop_the_job(head, call):
    from ray.job_submission import JobSubmissionClient

    def stop(line):
        if "up" in line:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        RayJobRunner(head, poll_s=0.5).run(
            call("import time; print('up', flush=True); time.sleep(300)"), stop
        )
    with pytest.raises(StageFailed, match="ran longer than 3 s"):
        RayJobRunner(head, poll_s=0.5).run(call("import time; time.sleep(300)", timeout_s=3), print)
    assert time.monotonic() - start < 60  # two jobs, each with 30 s to end
    assert all(job.status.is_terminal() for job in JobSubmissionClient(head).list_jobs())


def test_a_short_loss_of_the_api_is_survived_and_a_long_one_is_a_failure(head, call, monkeypatch):
    from ray.job_submission import JobSubmissionClient

    real, broken = JobSubmissionClient.get_job_info, threading.Event()

    def flaky(self, job):
        if broken.is_set():
            raise ConnectionError("connection refused")
        return real(self, job)

    monkeypatch.setattr(JobSubmissionClient, "get_job_info", flaky)
    script = "import time\nfor i in range(6): print('line', i, flush=True); time.sleep(1)"
    lines = []

    def on_line(line):
        lines.append(line)
        if line == "line 1":
            broken.set()
            threading.Timer(3, broken.clear).start()

    RayJobRunner(head, poll_s=0.5).run(call(script), on_line)
    assert [line for line in lines if line.startswith("line")] == [f"line {i}" for i in range(6)]
    broken.set()
    with pytest.raises(StageFailed, match="was lost: .* does not answer: connection refused"):
        RayJobRunner(head, poll_s=0.5, lost_after_s=2, stop_within_s=1).run(call("pass"), print)
