import logging

import pytest
import torch

from components.core import Progress, derive_seed, pick_dtype, track


def test_progress_line_tells_counts_rate_and_time_left():
    progress = Progress("train", 300, "steps")
    progress.count = 150
    line = progress.line("loss 0.1")
    assert line.startswith("train [##########----------] 150/300 steps")
    assert line.endswith("left loss 0.1")


def test_off_a_terminal_each_tenth_is_logged_once(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        assert list(track(range(100), "prepare", unit="photos")) == list(range(100))
    assert len(caplog.records) == 10


def test_off_a_terminal_long_work_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch):
    clock = iter(range(0, 100_000, 10))
    monkeypatch.setattr("components.core.progress.time.monotonic", lambda: next(clock))
    progress = Progress("train", 1_000_000, "steps")
    with caplog.at_level(logging.INFO):
        for _ in range(40):  # the clock moves on by 10 s whenever it is read
            progress.advance()
    assert 4 <= len(caplog.records) <= 8
    assert caplog.records[0].message.startswith("train [----")


def test_derived_seeds_differ_by_part_and_repeat():
    assert derive_seed(1, "noise", 2) == derive_seed(1, "noise", 2)
    assert len({derive_seed(1, "noise", step) for step in range(100)}) == 100


def test_cpu_computes_in_float32_unless_told():
    assert pick_dtype(torch.device("cpu")) == torch.float32
    assert pick_dtype(torch.device("cpu"), "bfloat16") == torch.bfloat16
    with pytest.raises(ValueError, match="float8.*allowed: auto, float32"):
        pick_dtype(torch.device("cpu"), "float8")
