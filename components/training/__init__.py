"""Training of the PhotoVerse adapter: objective, losses, loop, engine, launch, checkpoints, validation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.training.config import TrainConfig
    from components.training.plan import Plan, describe_plan, measured_throughput, plan_run
    from components.training.stage import train
    from components.training.tracking import read_history

_HOME = {
    "Plan": "plan",
    "TrainConfig": "config",
    "describe_plan": "plan",
    "measured_throughput": "plan",
    "plan_run": "plan",
    "read_history": "tracking",
    "train": "stage",
}

__all__ = [
    "Plan",
    "TrainConfig",
    "describe_plan",
    "measured_throughput",
    "plan_run",
    "read_history",
    "train",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in: the config without torch, the stage with all it needs."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
