"""What the tests of whole training runs on Ray share: settings, disturbing hooks, how runs compare."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from components.training import TrainConfig
from components.training.job import Job
from components.training.launch import claim_folder
from components.training.stage import make_job
from components.training.tracking import read_history

EXACT = ("step", "loss", "diffusion", "face", "text_regularizer", "visual_regularizer", "gradient_norm")
SETTINGS: dict[str, Any] = {
    "steps": 20,
    "global_batch_size": 8,
    "num_workers": 2,
    "checkpoint_every": 8,
    "log_every": 1,
    "max_failures": 1,
    "fusion": {"warmup_steps": 5},
    "validation": {"timesteps": 2, "sample_people": 2, "sample_steps": 2},
}
Hook = Callable[[int, Any], None]


def disturbed_job(parts: dict[str, Any], folder: Path, hook: Hook | None = None, **settings: Any) -> Job:
    """A job of `SETTINGS` with some changed, its folder claimed, and a hook that disturbs it."""
    config = TrainConfig.parse(SETTINGS | settings, source="a test")
    job = make_job(config, **parts, folder=folder, run_name="disturbed")
    claim_folder(job)
    return replace(job, hook=hook)


# Hooks are nested functions, so that they travel to the workers by value.


def once(rank: int, step: int, marker: Path, act: Callable[[], None]) -> Hook:
    """A hook that acts on one worker before one step; once, whatever restarts."""

    def hook(at_rank: int, inputs: Any) -> None:
        if (at_rank, inputs.step) == (rank, step) and not marker.exists():
            marker.touch()
            act()

    return hook


def kill() -> Callable[[], None]:
    """Kills the process, as a lost machine would."""

    def act() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return act


def all_of(*hooks: Hook) -> Hook:
    """One hook after the other."""

    def hook(rank: int, inputs: Any) -> None:
        for each in hooks:
            each(rank, inputs)

    return hook


def noting(folder: Path) -> Hook:
    """A hook that notes which samples a worker takes at a step; a step done again must take the same."""
    folder.mkdir(parents=True, exist_ok=True)

    def hook(rank: int, inputs: Any) -> None:
        note, keys = folder / f"{inputs.step:04d}-{rank}", "\n".join(inputs.keys)
        if note.exists() and note.read_text() != keys:
            raise RuntimeError(f"step {inputs.step} had {note.read_text().split()}, now {keys.split()}")
        note.write_text(keys)

    return hook


def noted(folder: Path, steps: Sequence[int]) -> list[str]:
    """The samples of some steps, in their order, whatever the number of workers was."""
    return [
        key
        for step in steps
        for note in sorted(folder.glob(f"{step:04d}-*"))
        for key in note.read_text().split("\n")
    ]


def visits(folder: Path, steps: Sequence[int]) -> Counter[str]:
    """How often each sample was seen in some steps."""
    return Counter(noted(folder, steps))


def losses(folder: Path) -> list[dict[str, float]]:
    """The terms of every row of a run's log."""
    return [{name: row[name] for name in EXACT} for row in read_history(folder) if "loss" in row]


def assert_same_run(found: Path, expected: Path) -> None:
    """Every logged loss and every weight bit for bit."""
    assert losses(found) == losses(expected)
    one, other = (load_file(folder / "adapter.safetensors") for folder in (found, expected))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
