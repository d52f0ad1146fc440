"""What it costs to run a stage through the runner rather than by hand."""

import subprocess
import sys
from dataclasses import dataclass

from flows.environment import PROJECT, child_environment
from flows.local_runner import LocalRunner
from flows.runners import StageCall

SCRIPT = """
import time
for i in range(3000):
    print("a line of a log, as long as such lines are", i)
time.sleep(0.3)
"""


@dataclass(frozen=True)
class ScriptCall(StageCall):
    def arguments(self):
        return ["-c", SCRIPT]


def test_running_a_process_through_the_runner(ratio, tmp_path):
    call = ScriptCall("train", tmp_path / "c", tmp_path / "r", tmp_path / "log")

    def through_the_runner():
        LocalRunner().run(call, lambda line: None)

    def plain_subprocess():
        subprocess.run(
            [sys.executable, *call.arguments()],
            cwd=PROJECT,
            env=child_environment(),
            capture_output=True,
            check=True,
        )

    assert ratio("runner.overhead", through_the_runner, plain_subprocess) < 3
