"""The processes of a stage: found by a mark in their environment, ended together, never left behind."""

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

MARK = "PHOTOVERSE_STAGE_ID"
LIFELINE = "PHOTOVERSE_LIFELINE"


def sweep(mark: str, patience_s: float) -> int:
    """Kills the processes that carry a stage's mark in their environment, wherever they sit.

    Ray's daemons and workers leave the stage's process group, so that signals to the group do not reach them.

    Args:
        mark: Value of the variable `PHOTOVERSE_STAGE_ID`.
        patience_s: Seconds that they have to end by themselves first.

    Returns:
        The number of processes killed.
    """
    import psutil

    deadline = time.monotonic() + patience_s
    killed = 0
    while left := [process for process in psutil.process_iter() if _carries(process, mark)]:
        if time.monotonic() >= deadline:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=2)
            killed += len(left)
            if time.monotonic() > deadline + 10:
                break  # unkillable: waiting for a disk or a device
        else:
            time.sleep(0.1)
    return killed


def _carries(process: "psutil.Process", mark: str) -> bool:
    import psutil

    if process.pid == os.getpid():
        return False
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def hold_lifeline() -> None:
    """Ends this stage, and all that it started, when the flow process that started it is gone."""
    if not os.environ.get(LIFELINE):
        return
    fd = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # what the stage starts must not read from, or hold, the lifeline

    def watch() -> None:
        while os.read(fd, 1):
            pass
        sweep(os.environ.get(MARK, ""), patience_s=0)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
