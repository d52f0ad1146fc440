"""Weights and Adam's moments in and out of a DeepSpeed engine, whole, by parameter name, from any ZeRO stage.

DeepSpeed's own checkpoints are pickles that fit one number of workers and one ZeRO stage. These are plain
float32 tensors: a run can go on with more or fewer workers, or another stage, and bit for bit where nothing
changed. Some names used here are private to DeepSpeed 0.19, which is pinned; the tests resume at every stage.
"""

from typing import Any

import torch
from torch import Tensor, nn

from components.training.blocks_8bit import BLOCKS, gather_blocks, is_8bit, restore_blocks

MOMENTS = ("exp_avg", "exp_avg_sq")


def gather_state(engine: Any, parameters: dict[str, nn.Parameter]) -> tuple[dict[str, Tensor], int]:
    """Collects the whole state on every rank; all ranks must call it.

    Args:
        engine: DeepSpeed engine with AdamW.
        parameters: Trained parameters by name.

    Returns:
        "weight/NAME", "exp_avg/NAME", "exp_avg_sq/NAME" -> float32 tensors on the CPU (no moments before the
        first step), and the number of steps that Adam has taken. Moments of 8 bits are kept in their blocks.
    """
    steps, found = adam_steps(engine), {}
    in_blocks = is_8bit(_adam(engine))
    for name, parameter in parameters.items():
        for kind in ("weight", *(MOMENTS if steps and not in_blocks else ())):
            found[f"{kind}/{name}"] = whole(engine, parameter, kind).detach().float().cpu()
    return (found | gather_blocks(_flats(engine), _adam(engine)) if in_blocks else found), steps


def restore_state(
    engine: Any, parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], steps: int
) -> None:
    """Puts a gathered state into an engine; all ranks must call it.

    Raises:
        ValueError: Names or shapes are not those of the trained parameters.
    """
    in_blocks = is_8bit(_adam(engine))
    kinds = ("weight", *(MOMENTS if steps and not in_blocks else ()))
    plain = {name: value for name, value in tensors.items() if not name.startswith(BLOCKS)}
    _check_names(parameters, plain, kinds)
    if not steps:
        _forget_moments(engine)
    if steps and in_blocks:
        restore_blocks(_flats(engine), _adam(engine), tensors, steps)
    elif steps:
        _create_moments(engine, steps)
    with torch.no_grad():
        for name, parameter in parameters.items():
            for kind in kinds:
                _set(engine, parameter, kind, tensors[f"{kind}/{name}"])
        _refresh_working_weights(engine)


def adam_steps(engine: Any) -> int:
    """Returns the number of steps that Adam has taken."""
    states = _adam(engine).state.values()
    return next((int(state["step"]) for state in states if "step" in state), 0)


def scaler_state(engine: Any) -> dict[str, float]:
    """Returns the numbers of the float16 loss scaler; empty without one."""
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    values = vars(scaler) if scaler is not None else {}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def restore_scaler(engine: Any, values: dict[str, float]) -> None:
    """Puts the numbers of the loss scaler back."""
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    for name, value in values.items() if scaler is not None else ():
        setattr(scaler, name, value)


def _adam(engine: Any) -> Any:
    """The AdamW inside DeepSpeed's wrapper."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def whole(engine: Any, parameter: nn.Parameter, kind: str) -> Tensor:
    """Returns "weight", "exp_avg" or "exp_avg_sq" of a parameter, whole; all ranks must call it."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if engine.zero_optimization_stage() == 0:
        return parameter if kind == "weight" else _adam(engine).state[parameter][kind]
    if kind == "weight":
        return safe_get_full_fp32_param(parameter)
    return safe_get_full_optimizer_state(parameter, kind)


def _set(engine: Any, parameter: Any, kind: str, value: Tensor) -> None:
    value = value.to(engine.device)
    stage = engine.zero_optimization_stage()
    if stage == 0:
        (parameter if kind == "weight" else _adam(engine).state[parameter][kind]).copy_(value)
    elif stage == 3:
        zero = engine.optimizer
        part, _ = zero._get_fp32_opt_state_partition(parameter, False, None if kind == "weight" else kind)
        start = part.numel() * zero._get_param_partition_rank(parameter)
        mine = value.flatten()[start : start + part.numel()]  # shorter on the last rank, whose part is padded
        part.zero_()
        part[: mine.numel()].copy_(mine)
    else:
        parameter.set_full_hp_param(value, None if kind == "weight" else kind)


def _flats(engine: Any) -> list[Tensor]:
    """The tensors that the optimizer steps: the parameters themselves, or this rank's parts of them."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return [parameter for group in _adam(engine).param_groups for parameter in group["params"]]
    zero = engine.optimizer
    return zero.fp32_partitioned_groups_flat if stage == 3 else zero.single_partition_of_fp32_groups


def _forget_moments(engine: Any) -> None:
    """Goes back to before the first step: AdamW makes its moments anew."""
    _adam(engine).state.clear()
    if engine.zero_optimization_stage() in (1, 2):
        engine.optimizer._hp_optimizer_states_linked = False


def _create_moments(engine: Any, steps: int) -> None:
    """Makes the moments that AdamW would make at its first step, and tells DeepSpeed where they are."""
    adam, zero, stage = _adam(engine), engine.optimizer, engine.zero_optimization_stage()
    for flat in _flats(engine):
        step = torch.tensor(float(steps), device=flat.device)
        adam.state[flat] = {"step": step, **{kind: torch.zeros_like(flat) for kind in MOMENTS}}
    if stage in (1, 2):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def _refresh_working_weights(engine: Any) -> None:
    """Copies the float32 masters into the weights that the model computes with."""
    zero, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage in (1, 2):
        zero.update_lp_params()
    elif stage == 3:
        for group in range(len(zero.fp32_partitioned_groups_flat)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        small = zero.persistent_parameters  # kept whole on every rank
        if small:
            small[0].partition(small)
            small[0].all_gather(small)


def _check_names(
    parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], kinds: tuple[str, ...]
) -> None:
    expected = {f"{kind}/{name}" for kind in kinds for name in parameters}
    odd = sorted(expected ^ tensors.keys())
    if odd:
        raise ValueError(
            f"the checkpoint does not fit the adapter: {len(odd)} tensors differ, first {odd[0]}"
        )
