"""Ray's `TorchTrainer` with two changes: faults of input are not retried, and a laptop starts no helpers.

A `ValueError` of a worker says that settings or data are wrong, a `StoreFault` that nothing can be kept; a
restart would only repeat either. And on a Ray that lives and dies with the stage, each helper is a process of
its own that costs seconds of start-up on two cores: autoscaling coordinator (nothing scales), placement group
cleaner (Ray ends with the stage, and without a dashboard it warns each second), preemption watcher,
manager of Ray's datasets (the workers read shards; it would start anew with each restart).

What is overridden is private to Ray 2.60, which is pinned; where a later Ray names it differently, nothing is
left out and training runs all the same.
"""

import os
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy

from components.training.store import StoreFault

LEFT_OUT = {
    "DatasetsCallback", "PlacementGroupCleanerCallback", "ControllerMetricsCallback", "WorkerMetricsCallback",
}  # fmt: skip
LOCAL_ENV = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


class FixedWorkers(FixedScalingPolicy):
    """A fixed number of workers that asks no autoscaler for them."""

    def _maybe_send_resource_request(self) -> None:
        return

    def _send_resource_request(self) -> None:
        return

    def _cancel_resource_request(self) -> None:
        return


class StopAtFaults(DefaultFailurePolicy):
    """Restarts after lost workers, not after a `ValueError` or `StoreFault`, which would only come again."""

    def make_decision(self, training_failed_error: Any) -> FailureDecision:
        """Returns what to do after a failure."""
        if input_fault(training_failed_error) is not None:
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class Trainer(TorchTrainer):
    """`TorchTrainer` for this room.

    Args:
        local: Ray was started by this stage and ends with it.
        *args: Of `TorchTrainer`.
        **kwargs: Of `TorchTrainer`.
    """

    def __init__(self, *args: Any, local: bool, **kwargs: Any) -> None:
        self._local = local
        for name, value in LOCAL_ENV.items() if local else ():
            os.environ.setdefault(name, value)
        super().__init__(*args, **kwargs)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        left_out = LEFT_OUT if self._local else set()
        return [callback for callback in callbacks if type(callback).__name__ not in left_out]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        scaling, failing = kwargs.get("scaling_policy"), kwargs.get("failure_policy")
        if self._local and type(scaling) is FixedScalingPolicy:
            kwargs["scaling_policy"] = FixedWorkers(scaling.scaling_config)
        if type(failing) is DefaultFailurePolicy:
            kwargs["failure_policy"] = StopAtFaults(failing.failure_config)
        return super()._initialize_and_run_controller(**kwargs)  # type: ignore[misc]


def worker_failures(error: Any) -> dict[int, BaseException]:
    """Returns the workers' own exceptions by rank; empty if the failure was not theirs."""
    failures = getattr(error, "worker_failures", {})
    return {rank: getattr(failure, "_base_exc", failure) for rank, failure in sorted(failures.items())}


def input_fault(error: Any) -> ValueError | StoreFault | None:
    """Returns the first `ValueError` or `StoreFault` among the workers' exceptions."""
    failures = worker_failures(error).values()
    return next((failure for failure in failures if isinstance(failure, ValueError | StoreFault)), None)


def controller_failure(error: Any) -> BaseException:
    """Returns what broke Ray's controller, which keeps the list of checkpoints."""
    return getattr(error, "controller_failure", error)


def list_refused(error: Any) -> bool:
    """Whether the controller did not start because it would not take its own list of checkpoints.

    An error of its start comes as text alone.
    """
    return CheckpointManagerInitializationError.__name__ in str(error)
