"""An exponential moving average of the trained weights, kept in float32 on every worker."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Average of named parameters: a <- decay a + (1 - decay) p after each optimizer step.

    Args:
        parameters: Names and whole parameters (not ZeRO 3 parts).
        decay: In (0, 1); early steps use (1 + n) / (10 + n) where that is smaller, so that the start is
            forgotten.
        average: State to go on with.
    """

    def __init__(
        self, parameters: dict[str, nn.Parameter], decay: float, average: dict[str, Tensor] | None = None
    ) -> None:
        self._parameters, self._decay = parameters, decay
        source = average or {name: parameter.detach() for name, parameter in parameters.items()}
        self.average = {
            name: source[name].to(parameter.device, torch.float32, copy=True)
            for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after step `step` (from 0) into the average."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.average[name].lerp_(parameter.detach().float(), 1 - decay)

    def whole(self) -> dict[str, Tensor]:
        """Returns the averaged weights on the CPU."""
        return {name: value.cpu() for name, value in self.average.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Replaces the weights that the model computes with by their average; DeepSpeed's masters stay."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.average[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the average in the weights' place for a look at it; they come back as they were."""
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(kept[name])
