"""Muon for matrices and kernels, AdamW for the rest: one torch optimizer.

Muon's update is the momentum with all its singular values set near one (five Newton-Schulz steps), scaled to
the size of an AdamW update, so that both share one learning rate and one weight decay. On the UNet of this
world it needs 0.6 of AdamW's steps; torch's own Muon takes matrices alone, no kernels.
Source: Jordan et al. 2024, "Muon"; scale by size: Liu et al. 2025, "Muon is Scalable for LLM Training",
Eq. 4.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.98), 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SMALLEST = 16
"""A matrix with fewer rows or columns (a depthwise kernel, a first layer) has too few directions to equal."""
RMS_OF_ADAMW = 0.2


def orthogonalized(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Returns the (R, C) matrix with its singular vectors kept and its singular values brought near one.

    Computed in bfloat16 where the processor has units for it, else in the matrix's own type.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / (matrix.norm() + EPSILON)
    x = x.to(torch.bfloat16) if has_bfloat16() else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrix.dtype)
    return x.T if tall else x


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16; elsewhere that type is far slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class Muon(torch.optim.Optimizer):
    """Each group says `muon: True` (kernels are read as (out, the rest) matrices) or False (AdamW)."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have gradients; the closure is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._muon(parameter) if group["muon"] else self._adam(parameter)
                parameter.add_(update, alpha=-group["lr"])

    def _muon(self, parameter: nn.Parameter) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1 - MOMENTUM)
        ahead = torch.lerp(parameter.grad, momentum, MOMENTUM).flatten(1)
        return (orthogonalized(ahead) * (RMS_OF_ADAMW * max(ahead.shape) ** 0.5)).view_as(parameter)

    def _adam(self, parameter: nn.Parameter) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        state["step"] += 1
        state["exp_avg"].lerp_(parameter.grad, 1 - BETAS[0])
        state["exp_avg_sq"].mul_(BETAS[1]).addcmul_(parameter.grad, parameter.grad, value=1 - BETAS[1])
        first, second = (1 - beta ** float(state["step"]) for beta in BETAS)
        return (state["exp_avg"] / first) / ((state["exp_avg_sq"] / second).sqrt() + EPSILON)


def parameter_groups(modules: nn.Module, weight_decay: float, apart: tuple[str, ...]) -> list[dict[str, Any]]:
    """Sorts parameters: matrices and kernels for Muon; embeddings, gains and biases for AdamW.

    Args:
        modules: All that is trained.
        weight_decay: Of everything but gains and biases.
        apart: Parts of names whose matrices go to AdamW too: embeddings, whose rows are looked up one by one.
    """
    muon: list[nn.Parameter] = []
    adam: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in modules.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim <= 1:
            plain.append(parameter)
            continue
        small = min(parameter.flatten(1).shape) < SMALLEST
        (adam if small or any(part in name for part in apart) else muon).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": muon, "weight_decay": weight_decay, "muon": True},
        {"params": adam, "weight_decay": weight_decay},
        {"params": plain},
    ]
    return [group for group in groups if group["params"]]
