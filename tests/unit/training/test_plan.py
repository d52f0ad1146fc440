"""Hours and money before anybody pays."""

import pytest

from components.training import TrainConfig, describe_plan, measured_throughput, plan_run

PAPER = TrainConfig()  # 60,000 steps of 64


def test_the_arithmetic():
    plan = plan_run(
        PAPER, gpus=8, samples_per_second_per_gpu=10, price_per_gpu_hour=2.0, scaling=0.8, overhead=0.25,
        dataset_samples=192_000,
    )  # fmt: skip
    assert plan.samples == 3_840_000
    assert plan.samples_per_second == pytest.approx(64)
    assert plan.hours == pytest.approx(60_000 / 3600)
    assert plan.cost == pytest.approx(60_000 / 3600 * 1.25 * 8 * 2)
    assert plan.epochs == pytest.approx(20)
    assert plan.lost_hours == pytest.approx(1000 / 3600)
    alone = plan_run(PAPER, gpus=1, samples_per_second_per_gpu=10, scaling=0.8)
    assert alone.samples_per_second == 10  # nothing is lost in scaling
    assert alone.cost is None


def test_it_is_told_in_words():
    text = describe_plan(
        plan_run(PAPER, gpus=8, samples_per_second_per_gpu=8, price_per_gpu_hour=2), "measured"
    )
    assert "60,000 steps of 64 samples = 3,840,000 samples" in text
    assert "8 GPUs: 60.8 samples a second" in text
    assert "measured" in text
    assert "18.4 hours" in text
    assert "147 GPU hours at 2 each: 295 in all" in text


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"gpus": 5}, "gpus must divide the global batch of 64 samples, found 5"),
        ({"gpus": 0}, "gpus must divide"),
        ({"samples_per_second_per_gpu": 0}, "samples per second must be above 0, found 0"),
        ({"samples_per_second_per_gpu": float("nan")}, "samples per second"),
        ({"price_per_gpu_hour": -1}, "price must be at least 0"),
        ({"scaling": 1.5}, "at most 1"),
    ],
)
def test_what_cannot_be_is_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan_run(PAPER, **{"gpus": 8, "samples_per_second_per_gpu": 1.0} | values)


def test_throughput_is_measured_by_a_log_without_its_start():
    rows = [{"samples_per_second": value} for value in (1.0, 8.0, 9.0, 10.0)] + [{"reference_gain": 0.1}]
    assert measured_throughput(rows, workers=2) == 4.5
    with pytest.raises(ValueError, match="no throughput yet"):
        measured_throughput(rows[:1], workers=1)
