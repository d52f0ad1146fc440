"""One training loop for every part: resumable after any kill, scheduled by time or by steps, logged.

A step's batch and noise are a pure function of (seed, part, step), so a run by `steps` that was killed and
resumed ends with the weights of one that was not. Checkpoints are safetensors: weights, their moving
average and the optimizer's state.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from components.core import Progress, atomic_path, derive_seed
from components.portraits.pretrain.config import Budget
from components.portraits.pretrain.muon import Muon, has_bfloat16, parameter_groups

logger = logging.getLogger(__name__)
EMBEDDINGS = ("embedding", "centres")
"""Names of matrices whose rows are looked up or compared one by one: words, places, known people."""
LossFunction = Callable[[np.random.Generator, float], dict[str, torch.Tensor]]
"""(random generator of this step, fraction of training done) -> named losses; "loss" is the one to lower."""


@dataclass
class Task:
    """What is trained and how its loss is made.

    Attributes:
        name: Name of the part, and of its checkpoint.
        modules: Everything with trained weights or running statistics.
        loss: Losses of one step.
        look: Called with the step at each tenth checkpoint, e.g. to save a grid of pictures.
    """

    name: str
    modules: nn.ModuleDict
    loss: LossFunction
    look: Callable[[str], None] | None = None
    losses: list[dict[str, float]] = field(default_factory=list)
    """Of the steps since the last checkpoint."""


@dataclass
class _Clock:
    """How far training is, by time or by steps."""

    budget: Budget
    step: int = 0
    seconds: float = 0.0

    @property
    def fraction(self) -> float:
        if self.budget.steps is not None:
            return self.step / self.budget.steps
        return self.seconds / (60 * self.budget.minutes)

    @property
    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(self.budget.warmup, 1))
        wave = 0.5 * (1 + math.cos(math.pi * min(self.fraction, 1.0)))
        return self.budget.learning_rate * warm * (0.02 + 0.98 * wave)


def fit(task: Task, budget: Budget, folder: Path, seed: int, save_every: int = 100) -> nn.ModuleDict:
    """Trains the task's modules to the end of the budget, from where an earlier run stopped.

    Args:
        task: What to train.
        budget: How long; a larger budget than that of an earlier run goes on from its end.
        folder: Holds the checkpoint `<name>.safetensors`; losses go to `losses/<name>.jsonl` beside it.
        seed: Root of all draws.
        save_every: Steps between checkpoints.

    Returns:
        The modules, with averaged weights if the budget asks for an average, in eval mode.
    """
    groups = parameter_groups(task.modules, budget.weight_decay, EMBEDDINGS)
    optimizer = Muon(groups, lr=budget.learning_rate)
    average = _Average(task.modules, budget.average)
    clock, path = _Clock(budget), folder / f"{task.name}.safetensors"
    _restore(path, task.modules, average, optimizer, clock)
    task.modules.train()
    with Progress(task.name, 1000, "permille") as progress:
        while clock.fraction < 1:
            started = time.monotonic()
            losses = _step(task, optimizer, clock, seed, budget.bfloat16)
            average.update()
            clock.step += 1
            clock.seconds += time.monotonic() - started
            task.losses.append(losses)
            note = f"step {clock.step} " + " ".join(f"{k} {v:.4f}" for k, v in losses.items())
            progress.advance(min(1000, int(1000 * clock.fraction)) - progress.count, note)
            if clock.step % save_every == 0:
                _checkpoint(path, task, average, optimizer, clock)
    _save(path, task.modules, average, optimizer, clock)
    _log_losses(path, task, clock)
    average.apply()
    if task.look:
        task.look("end")
    return task.modules.eval()


def _step(
    task: Task, optimizer: torch.optim.Optimizer, clock: _Clock, seed: int, mixed: bool
) -> dict[str, float]:
    step_seed = derive_seed(seed, task.name, clock.step)
    torch.manual_seed(step_seed)
    for group in optimizer.param_groups:
        group["lr"] = clock.learning_rate
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed and has_bfloat16()):
        losses = task.loss(np.random.default_rng(step_seed), clock.fraction)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    torch.nn.utils.clip_grad_norm_(task.modules.parameters(), 1.0)
    optimizer.step()
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not math.isfinite(values["loss"]):
        raise FloatingPointError(f"{task.name}: loss is {values['loss']} at step {clock.step}")
    return values


class _Average:
    """Moving average of the weights; starts fast, so that the first weights are soon forgotten."""

    def __init__(self, modules: nn.ModuleDict, decay: float) -> None:
        self.modules, self.decay, self.count = modules, decay, 0
        self.weights = {k: v.detach().clone() for k, v in modules.named_parameters()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        if not self.decay:
            return
        self.count += 1
        decay = min(self.decay, self.count / (self.count + 10))
        for name, parameter in self.modules.named_parameters():
            self.weights[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Puts the average in the place of the weights."""
        for name, parameter in self.modules.named_parameters():
            if self.decay:
                parameter.copy_(self.weights[name])

    @torch.no_grad()
    def swapped(self, function: Callable[[], None]) -> None:
        """Calls the function with the average in place, then puts the weights back."""
        kept = {name: parameter.detach().clone() for name, parameter in self.modules.named_parameters()}
        self.apply()
        self.modules.eval()
        function()
        self.modules.train()
        for name, parameter in self.modules.named_parameters():
            parameter.copy_(kept[name])


def _checkpoint(
    path: Path, task: Task, average: _Average, optimizer: torch.optim.Optimizer, clock: _Clock
) -> None:
    _save(path, task.modules, average, optimizer, clock)
    recent = task.losses
    means = " ".join(f"{key} {np.mean([row[key] for row in recent if key in row]):.4f}" for key in recent[-1])
    per_step = clock.seconds / clock.step
    logger.info(
        "%s step %d (%.0f%%, %.2f s a step): %s", task.name, clock.step, 100 * clock.fraction, per_step, means
    )
    _log_losses(path, task, clock)
    if task.look and clock.step % 200 == 0:
        look = task.look
        average.swapped(lambda: look(f"{clock.step:06d}"))


def _log_losses(path: Path, task: Task, clock: _Clock) -> None:
    """Adds the losses since the last checkpoint to `losses/<name>.jsonl` beside the checkpoints' folder."""
    log = path.parent.parent / "losses" / f"{task.name}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    first = clock.step - len(task.losses)
    with log.open("a") as file:
        file.writelines(json.dumps({"step": first + i} | row) + "\n" for i, row in enumerate(task.losses))
    task.losses.clear()


def _save(
    path: Path, modules: nn.ModuleDict, average: _Average, optimizer: torch.optim.Optimizer, clock: _Clock
) -> None:
    tensors = {f"weights.{k}": v.detach().contiguous() for k, v in modules.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value.contiguous() for key, value in state.items()}
    about = {"step": clock.step, "seconds": clock.seconds, "averaged": average.count}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({k: v.clone() for k, v in tensors.items()}, temporary, {"progress": json.dumps(about)})


def _restore(
    path: Path, modules: nn.ModuleDict, average: _Average, optimizer: torch.optim.Optimizer, clock: _Clock
) -> None:
    if not path.is_file():
        return
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    modules.load_state_dict(
        {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    )
    for name in average.weights:
        average.weights[name].copy_(tensors[f"average.{name}"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    clock.step, clock.seconds, average.count = about["step"], about["seconds"], about["averaged"]
    logger.info("%s goes on from step %d", path.stem, clock.step)
