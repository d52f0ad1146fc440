"""Throughput, wait for data, memory and cost of the log."""

import pytest

from components.training import clock as module
from components.training.clock import Clock


class Time:
    """A clock that stands until it is told to go on."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(module, "time", time)
    return time


def test_the_figures_of_an_interval(time):
    clock = Clock(batch_size=8, price_per_hour=3.0, seconds_before=3000)
    for _ in range(4):
        with clock.waiting():
            time.now += 0.5
        time.now += 2
        clock.steps += 1
        with clock.paused():  # a checkpoint
            time.now += 20
    figures = clock.figures()
    assert figures["samples_per_second"] == pytest.approx(32 / 10)
    assert figures["step_seconds"] == pytest.approx(2.5)
    assert figures["data_wait_share"] == pytest.approx(0.2)
    assert 0.01 < figures["memory_gb"] < 1000
    assert clock.seconds == pytest.approx(3000 + 90)  # checkpoints are paid for
    assert figures["cost"] == pytest.approx(3.0 * 3090 / 3600)
    time.now += 1
    clock.steps += 1
    again = clock.figures()
    assert (again["samples_per_second"], again["data_wait_share"]) == (pytest.approx(8), 0)


def test_without_a_price_there_is_no_cost(time):
    assert "cost" not in Clock(batch_size=8).figures()
