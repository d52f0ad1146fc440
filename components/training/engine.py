"""DeepSpeed: its settings built from ours, its start, and one optimizer step with the gradient norm.

One owner for each value: what is in `TrainConfig` is written into DeepSpeed's config here and nowhere else.
On the CPU the optimizer is torch's AdamW, because DeepSpeed's own costs minutes of compilation there.
"""

import logging
import math
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from components.training.config import OptimizerConfig, TrainConfig


def deepspeed_settings(config: TrainConfig, world_size: int, dtype: torch.dtype) -> dict[str, Any]:
    """Returns DeepSpeed's config of a run; a pure function."""
    half = dtype in (torch.bfloat16, torch.float16)
    stage = max(config.zero_stage, 1) if half else config.zero_stage  # stage 1 keeps readable float32 masters
    zero: dict[str, Any] = {"stage": stage}
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if config.offload == "optimizer_and_weights":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size_of(world_size),
        "gradient_accumulation_steps": config.accumulation_steps_of(world_size),
        "gradient_clipping": config.optimizer.gradient_clipping,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW for offloaded state too: nothing to compile
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if dtype == torch.bfloat16:
        settings["bf16"] = {"enabled": True}
    elif dtype == torch.float16:
        settings["fp16"] = {"enabled": True}
    return settings


def start_engine(
    model: nn.Module, parameters: list[nn.Parameter], config: TrainConfig, dtype: torch.dtype
) -> Any:
    """Wraps the model in a DeepSpeed engine on the process group that Ray Train has made.

    Args:
        model: Frozen parts and adapter.
        parameters: What is trained.
        config: The run.
        dtype: float32 on the CPU; bfloat16 or float16 makes DeepSpeed keep float32 masters.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    # On a CPU DeepSpeed would compile an all-reduce through shared memory at its first start: half a minute,
    # a compiler that may be missing, a lock that a killed start leaves behind for ever. Gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    world_size = torch.distributed.get_world_size()
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=parameters,
        optimizer=make_optimizer(parameters, config.optimizer),
        config=deepspeed_settings(config, world_size, dtype),
        dist_init_required=False,
    )
    return engine


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Returns torch's AdamW over the parameters, or that of bitsandbytes with moments of 8 bits.

    Raises:
        ValueError: bitsandbytes is asked for and not installed.
    """
    values: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "eps": config.epsilon,
        "weight_decay": config.weight_decay,
    }
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, **values, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            "optimizer.kind 'adamw8bit' needs the package bitsandbytes, which is not installed: "
            "`pip install -c infra/constraints.txt bitsandbytes`, or use 'adamw'"
        ) from error
    return AdamW8bit(parameters, **values)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Returns the rate of step `step` (from 0); a pure function, so that nothing has to be resumed."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    fall = progress if config.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return config.learning_rate * (1 - fall * (1 - config.final_share))


def known_gradient_norm(engine: Any) -> Tensor | None:
    """Returns the global gradient norm where it can be told before the optimizer step (ZeRO 0), else None."""
    plain = not hasattr(engine.optimizer, "_global_grad_norm") and engine.zero_optimization_stage() == 0
    if not plain or not engine.is_gradient_accumulation_boundary():
        return None
    groups = engine.optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).detach().float()


def apply_step(engine: Any, rate: float, norm: Tensor | None = None) -> Tensor:
    """Tells DeepSpeed that a backward pass is done; after a batch's last one it takes the optimizer step.

    Args:
        engine: DeepSpeed engine.
        rate: Learning rate of the step.
        norm: What `known_gradient_norm` told.

    Returns:
        The global gradient norm before clipping; NaN where DeepSpeed does not tell it (float16 overflow, or
        a step that is not complete yet).
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    engine.step()
    if norm is None:
        found = engine.get_global_grad_norm()
        norm = torch.as_tensor(float("nan") if found is None else found)
    return norm.detach().float()
