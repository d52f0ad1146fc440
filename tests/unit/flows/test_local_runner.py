"""The child-process runner: lines, exit codes, timeouts, and no process left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import psutil
import pytest

from flows.local_runner import LocalRunner
from flows.processes import MARK, sweep
from flows.runners import REFUSED, StageCall, StageFailed, make_runner


@dataclass(frozen=True)
class ScriptCall(StageCall):
    """A call that runs a script in place of the stage command."""

    script: str = ""

    def arguments(self):
        return ["-c", textwrap.dedent(self.script)]


@pytest.fixture
def call(tmp_path):
    def make(script, **more):
        return ScriptCall(
            stage="train",
            config_file=tmp_path / "config.yaml",
            record_file=tmp_path / "records" / "train.json",
            log_file=tmp_path / "logs" / "train.log",
            script=script,
            **more,
        )

    return make


FAST = LocalRunner(interrupt_s=1.0, terminate_s=0.5)


def test_lines_of_both_streams_reach_the_listener_and_the_log_file(call):
    lines = []
    one = call("""
        import sys
        print("to stdout", flush=True)
        print("\\x1b[31mred\\x1b[0m to stderr", file=sys.stderr, flush=True)
        print("first half\\rwhole bar")
    """)
    FAST.run(one, lines.append)
    assert lines == ["to stdout", "red to stderr", "whole bar"]
    assert one.log_file.read_text().splitlines() == lines


def test_a_failure_says_stage_code_and_last_lines(call):
    with pytest.raises(StageFailed, match=r"stage 'train' failed with exit code 3") as caught:
        FAST.run(call("import sys\nfor i in range(40): print('line', i)\nsys.exit(3)"), lambda line: None)
    assert "| line 39" in str(caught.value)
    assert "line 20\n" not in str(caught.value)
    assert caught.value.retryable


def test_a_refusal_is_not_worth_another_try(call):
    with pytest.raises(StageFailed) as caught:
        FAST.run(call(f"raise SystemExit({REFUSED})"), lambda line: None)
    assert not caught.value.retryable


def test_a_killed_stage_is_named_by_its_signal(call):
    with pytest.raises(StageFailed, match="SIGKILL.*memory"):
        FAST.run(call("import os; os.kill(os.getpid(), 9)"), lambda line: None)


def test_a_stage_that_takes_too_long_fails_and_ends(call):
    pids = []
    one = call("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)", timeout_s=1.0)
    start = time.monotonic()
    with pytest.raises(StageFailed, match="ran longer than 1 s"):
        FAST.run(one, lambda line: pids.append(int(line)))
    assert time.monotonic() - start < 8
    assert not psutil.pid_exists(pids[0])


STUBBORN = """
    import os, signal, subprocess, sys, time
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # a daemon in a session of its own, as Ray starts them
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    print(os.getpid(), child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_whatever_breaks_the_flow_ends_the_stage_and_its_daemons(call, kind):
    pids = []

    def on_line(line):
        pids.extend(int(word) for word in line.split())
        raise kind

    start = time.monotonic()
    with pytest.raises(kind):
        FAST.run(call(STUBBORN), on_line)
    assert time.monotonic() - start < 10
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_polite_stage_is_only_interrupted(call, tmp_path):
    note = tmp_path / "note"
    script = f"""
        import signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        try:
            print("up", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            open({str(note)!r}, "w").write("cleaned up")
    """

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FAST.run(call(script), stop)
    assert note.read_text() == "cleaned up"


def test_daemons_left_by_a_stage_that_ended_well_are_swept(call):
    script = """
        import subprocess, sys
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = subprocess.Popen(sleep, start_new_session=True)
        print(child.pid, flush=True)
    """
    pids = []
    FAST.run(call(script), lambda line: pids.append(int(line)))
    assert not psutil.pid_exists(pids[0])


def test_a_stage_does_not_outlive_a_flow_process_that_was_killed(tmp_path):
    """The flow process gets SIGKILL and cannot clean up: the stage must notice by itself."""
    flow = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {os.getcwd()!r})
        from tests.unit.flows.test_local_runner import FAST, ScriptCall
        script = "from flows.processes import hold_lifeline; hold_lifeline(); import os, time; "
        script += "print(os.getpid(), flush=True); time.sleep(60)"
        call = ScriptCall("train", Path("c"), Path("r"), Path({str(tmp_path)!r}) / "log", script=script)
        FAST.run(call, lambda line: print(line, flush=True))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(flow)], stdout=subprocess.PIPE, text=True
    )
    stage = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGKILL)
    process.wait(5)
    process.stdout.close()
    gone, alive = psutil.wait_procs([stage], timeout=10)
    assert not alive


def test_sweep_takes_only_marked_processes():
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={MARK: "other"})
    try:
        assert sweep("no such mark", patience_s=0) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_unknown_runners_are_refused():
    with pytest.raises(ValueError, match="'slurm' is not known; allowed: local, ray-job"):
        make_runner("slurm")
    with pytest.raises(ValueError, match="needs ray_address"):
        make_runner("ray-job")


def test_a_stage_gets_quiet_engines_its_threads_and_no_hub(call, monkeypatch):
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    lines = []
    names = ["OMP_NUM_THREADS", "DO_NOT_TRACK", "RAY_USAGE_STATS_ENABLED", "HF_HUB_OFFLINE"]
    FAST.run(call(f"import os\nfor n in {names!r}: print(os.environ.get(n))", threads=3), lines.append)
    assert lines == ["3", "true", "0", "1"]
    lines.clear()
    FAST.run(call("import os; print(os.environ.get('HF_HUB_OFFLINE'))", local_base=False), lines.append)
    assert lines == ["None"]
