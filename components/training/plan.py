"""What a run will take, before anybody pays: hours and money from a throughput. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from components.training.config import TrainConfig

SETTLING = 1  # rows of the log that hold the start: reading shards, warming up


@dataclass(frozen=True)
class Plan:
    """A run and what it takes.

    Attributes:
        steps: Optimizer steps.
        samples: Samples seen.
        gpus: Workers, one GPU each.
        samples_per_second: Of all workers together, with what is lost in scaling.
        hours: Wall time of the steps.
        overhead_hours: Wall time of starts, checkpoints and validation on top of it.
        price_per_gpu_hour: In whatever currency it is given; None if unknown.
        cost: Of all hours of all GPUs; None without a price.
        epochs: Times that each sample is seen; None if their number is unknown.
        lost_hours: Wall time that one lost worker costs at worst: the steps since the last checkpoint.
    """

    steps: int
    samples: int
    gpus: int
    samples_per_second: float
    hours: float
    overhead_hours: float
    price_per_gpu_hour: float | None
    cost: float | None
    epochs: float | None
    lost_hours: float


def plan_run(
    config: TrainConfig,
    *,
    gpus: int,
    samples_per_second_per_gpu: float,
    price_per_gpu_hour: float | None = None,
    scaling: float = 0.95,
    overhead: float = 0.05,
    dataset_samples: int | None = None,
) -> Plan:
    """Returns hours and money of a run.

    Args:
        config: The run; its number of workers is replaced by `gpus`.
        gpus: Workers, one GPU each.
        samples_per_second_per_gpu: Of one worker alone, as a run's log measures it.
        price_per_gpu_hour: Price of one GPU for an hour.
        scaling: Share of its throughput that a worker keeps when there are several.
        overhead: Starts, checkpoints and validation, as a share of the steps' time.
        dataset_samples: Training samples, for the number of epochs.

    Raises:
        ValueError: A number out of range, or a global batch that cannot be dealt out to so many GPUs.
    """
    if gpus < 1 or config.global_batch_size % gpus:
        raise ValueError(
            f"gpus must divide the global batch of {config.global_batch_size} samples, found {gpus}"
        )
    for name, value, low in (
        ("samples per second", samples_per_second_per_gpu, 0),
        ("scaling", scaling, 0),
        ("price", price_per_gpu_hour, -1e-9),
        ("overhead", overhead, -1e-9),
    ):
        if value is not None and not low < value < float("inf"):
            raise ValueError(f"{name} must be {'above' if low == 0 else 'at least'} 0, found {value}")
    if scaling > 1:
        raise ValueError(f"scaling is a share of at most 1, found {scaling}")
    rate = samples_per_second_per_gpu * gpus * (scaling if gpus > 1 else 1.0)
    samples = config.steps * config.global_batch_size
    hours = samples / rate / 3600
    total = hours * (1 + overhead)
    return Plan(
        steps=config.steps,
        samples=samples,
        gpus=gpus,
        samples_per_second=rate,
        hours=hours,
        overhead_hours=hours * overhead,
        price_per_gpu_hour=price_per_gpu_hour,
        cost=None if price_per_gpu_hour is None else total * gpus * price_per_gpu_hour,
        epochs=samples / dataset_samples if dataset_samples else None,
        lost_hours=min(config.checkpoint_every, config.steps) * config.global_batch_size / rate / 3600,
    )


def measured_throughput(rows: Sequence[dict[str, Any]], workers: int) -> float:
    """Returns samples a second of one worker: the median of a run's log without its first row.

    Args:
        rows: Of `metrics.jsonl`.
        workers: That run's.

    Raises:
        ValueError: The log is too short to tell.
    """
    rates = [row["samples_per_second"] for row in rows if "samples_per_second" in row][SETTLING:]
    if not rates:
        raise ValueError(
            f"the run's log has no throughput yet: at least {SETTLING + 1} rows of train.log_every steps"
        )
    return median(rates) / workers


def describe_plan(plan: Plan, source: str) -> str:
    """Returns the plan for people.

    Args:
        plan: The plan.
        source: Where the throughput comes from.
    """
    total = plan.hours + plan.overhead_hours
    lines = [
        f"{plan.steps:,} steps of {plan.samples // plan.steps} samples = {plan.samples:,} samples"
        + ("" if plan.epochs is None else f", {plan.epochs:.1f} epochs"),
        f"{plan.gpus} GPU{'s' if plan.gpus > 1 else ''}: {plan.samples_per_second:.1f} samples a second",
        f"  {source}",
        f"{total:.1f} hours ({total / 24:.1f} days): {plan.hours:.1f} of steps, {plan.overhead_hours:.1f} of "
        "starts, checkpoints and validation",
        f"a lost worker costs at most {60 * plan.lost_hours:.0f} minutes of steps and a restart",
    ]
    if plan.cost is not None:
        lines.append(
            f"{total * plan.gpus:,.0f} GPU hours at {plan.price_per_gpu_hour:g} each: {plan.cost:,.0f} in all"
        )
    return "\n".join(lines)
