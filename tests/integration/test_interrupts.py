"""A run in a terminal that is told to end: nothing of it goes on."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from flows.environment import PROJECT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_leaves_nothing_behind(tmp_path, number):
    command = [sys.executable, "-m", "flows.cli", "train", "--name", "told", "--root", str(tmp_path)]
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=log, stderr=log, preexec_fn=ignore_interrupts, start_new_session=True
        )
    begun = []
    try:
        for _ in range(240):
            begun = psutil.Process(process.pid).children(recursive=True)
            if any("stage" in child.cmdline() for child in begun):
                break
            time.sleep(0.5)
        assert any("uvicorn" in child.cmdline() for child in begun), (tmp_path / "log.txt").read_text()
        process.send_signal(number)
        assert process.wait(60) == 130
        assert psutil.wait_procs(begun, 20)[1] == []
    finally:
        process.kill()
        for left in begun:
            with suppress(psutil.NoSuchProcess):
                left.kill()
    assert "interrupted" in (tmp_path / "log.txt").read_text()


def ignore_interrupts() -> None:
    """What a shell does for the jobs that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
