import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def run_tool():
    """Runs a command of the environment; fails with what it printed."""

    def run(*words: str) -> str:
        program = Path(sys.executable).parent / words[0]
        done = subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
