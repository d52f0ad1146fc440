"""Looks at the loss before the weights change: no number, or far above its running mean, and the run stops.

Every rank sees the same global loss and so comes to the same judgement.
"""

import math

import torch
from torch import Tensor

from components.training.config import DivergenceConfig

MEMORY = 0.98  # of the running mean: about the last fifty steps
SETTLED = 10  # steps before a loss is compared with their mean


class BadLoss(Exception):
    """The loss or the gradient is not what training can go on with.

    Attributes:
        stepped: Whether the optimizer has taken the step all the same.
    """

    def __init__(self, message: str, stepped: bool = False) -> None:
        super().__init__(message)
        self.stepped = stepped


def judge(loss: float, mean: float | None, step: int, factor: float | None) -> str | None:
    """Says what is wrong with a loss; None if nothing is. A pure function.

    Args:
        loss: Of the global batch.
        mean: Running mean of the losses before; None at the first step.
        step: Steps done before it.
        factor: See `DivergenceConfig`.
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if factor is not None and mean is not None and step >= SETTLED and loss > factor * mean:
        return f"the loss is {loss:.4g}, more than {factor:g} times its running mean {mean:.4g}"
    return None


def running_mean(mean: float | None, loss: float, step: int) -> float:
    """Returns the running mean with one more loss; the first steps weigh alike."""
    weight = max(1 - MEMORY, 1 / (step + 1))
    return loss if mean is None else mean + weight * (loss - mean)


class Guard:
    """The check that a step makes before it changes the weights.

    Args:
        config: What counts as exploded.
        keys: Names of this worker's samples of the step.
        step: Steps done before it.
        mean: Running mean of the loss.
    """

    def __init__(
        self, config: DivergenceConfig, keys: tuple[str, ...], step: int, mean: float | None
    ) -> None:
        self._config, self._keys, self._step, self._mean = config, keys, step, mean

    def __call__(self, terms: Tensor, norm: Tensor | None) -> None:
        """Raises `BadLoss` that names the step and the batch's samples; on all ranks alike."""
        fault = judge(float(terms[0]), self._mean, self._step, self._config.explosion_factor)
        if fault is None and norm is not None and not bool(torch.isfinite(norm)):
            fault = f"the gradient norm is {float(norm)}"
        if fault is not None:
            raise BadLoss(self.message(fault))

    def message(self, fault: str) -> str:
        """Names the step and all samples of the global batch; all ranks must call it."""
        keys: list[tuple[str, ...]] = [()] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(keys, self._keys)
        named = ", ".join(key for part in keys for key in part)
        return f"{fault} at step {self._step + 1}; the batch held {named}"
