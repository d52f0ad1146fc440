"""Ray Train without the helpers that only a cluster needs, for a Ray that lives and dies with the stage.

On a laptop each helper is a process of its own that costs seconds of start-up on two cores: autoscaling
coordinator (nothing scales), placement group cleaner (Ray ends with the stage, and without a dashboard it
warns each second), preemption watcher. What is overridden is private to Ray 2.60, which is pinned; where a
later Ray names it differently, nothing is left out and training runs all the same.
"""

import os
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy

LEFT_OUT = {"PlacementGroupCleanerCallback", "ControllerMetricsCallback", "WorkerMetricsCallback"}
LOCAL_ENV = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


class FixedWorkers(FixedScalingPolicy):
    """A fixed number of workers that asks no autoscaler for them."""

    def _maybe_send_resource_request(self) -> None:
        return

    def _send_resource_request(self) -> None:
        return

    def _cancel_resource_request(self) -> None:
        return


class LocalTorchTrainer(TorchTrainer):
    """`TorchTrainer` with the workers, their controller and nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name, value in LOCAL_ENV.items():
            os.environ.setdefault(name, value)
        super().__init__(*args, **kwargs)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ not in LEFT_OUT]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        if type(kwargs.get("scaling_policy")) is FixedScalingPolicy:
            kwargs["scaling_policy"] = FixedWorkers(kwargs["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**kwargs)  # type: ignore[misc]
