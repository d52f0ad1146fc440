"""Runs a stage as a child process in a session of its own."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from flows.environment import PROJECT, child_environment
from flows.processes import LIFELINE, MARK, sweep
from flows.runners import ANSI, NOISE, TAIL_LINES, OnLine, StageCall, StageFailed


@dataclass(frozen=True)
class LocalRunner:
    """Runs the stage as a child process in a session of its own.

    Attributes:
        interrupt_s: Seconds that the stage has after SIGINT, before SIGTERM.
        terminate_s: Seconds that it has after SIGTERM, before SIGKILL.
        environment: Variables to set for the stage over all others.
    """

    interrupt_s: float = 5.0
    terminate_s: float = 3.0
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, call: StageCall, on_line: OnLine) -> None:
        """Starts the stage, streams its lines, and leaves none of its processes behind, whatever happens."""
        mark = uuid.uuid4().hex
        environment = child_environment(
            threads=call.threads,
            local_base=call.local_base,
            extra={MARK: mark, LIFELINE: "1"} | self.environment,
        )
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        call.log_file.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, *call.arguments()],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,  # never written to: when we die it closes, and the stage ends itself
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with call.log_file.open("a", encoding="utf-8") as log:
                for line in _lines(process, call.timeout_s):
                    log.write(line + "\n")
                    log.flush()
                    if not NOISE.search(line):
                        tail.append(line)
                        on_line(line)
        except TimeoutError:
            self._stop(process, mark)
            raise StageFailed(call.stage, f"ran longer than {call.timeout_s:g} s", list(tail)) from None
        except BaseException:  # also Prefect's TerminationSignal and Ctrl-C
            self._stop(process, mark)
            raise
        finally:
            sweep(mark, patience_s=self.terminate_s)
            with suppress(OSError):
                process.stdin and process.stdin.close()
        if process.returncode != 0:
            raise StageFailed(
                call.stage, _how_it_ended(process.returncode), list(tail), code=process.returncode
            )

    def _stop(self, process: "subprocess.Popen[bytes]", mark: str) -> None:
        """Ends the stage and everything that it started: SIGINT, SIGTERM, then SIGKILL."""
        previous = _ignore_further_signals()
        try:
            for number, patience in ((signal.SIGINT, self.interrupt_s), (signal.SIGTERM, self.terminate_s)):
                _signal_group(process, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                    break
            _signal_group(process, signal.SIGKILL)
            sweep(mark, patience_s=0)
            process.wait()
        finally:
            _restore_signals(previous)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (the machine ran out of memory?)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _ignore_further_signals() -> dict[int, object]:
    """Keeps a second Ctrl-C or SIGTERM from breaking into the ending of a stage; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}


def _restore_signals(previous: dict[int, object]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


def _lines(process: "subprocess.Popen[bytes]", timeout_s: float | None) -> Iterator[str]:
    """Yields the process's lines until it has ended; raises TimeoutError after `timeout_s` seconds."""
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + timeout_s if timeout_s else None
    ended_at: float | None = None
    while True:
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            line = ""
        if line is None:
            process.wait(max(0.1, deadline - time.monotonic()) if deadline else None)
            return
        if line:
            yield line
        if deadline and time.monotonic() > deadline:
            raise TimeoutError
        if ended_at is None and process.poll() is not None:
            ended_at = time.monotonic()
        if ended_at and time.monotonic() > ended_at + 2 and lines.empty():
            return  # a daemon that outlives the stage holds the pipe open


def _read(stream: IO[bytes], lines: "queue.Queue[str | None]") -> None:
    with suppress(ValueError, OSError):
        for raw in stream:
            text = ANSI.sub("", raw.decode("utf-8", errors="replace"))
            last = (
                text.rstrip("\r\n").rsplit("\r", 1)[-1].rstrip()
            )  # a bar redraws its line: keep how it ended
            if last:
                lines.put(last)
    lines.put(None)
