"""Saving and resuming a run, so that a killed run ends with the weights of one that was not killed.

What is kept: DeepSpeed's state of the trained parameters and the optimizer (frozen ones are left out), the
step, and running sums of the log. What need not be kept: reader position, noise and every other draw are
functions of (seed, step), and so is each rank's random state, which `seed_step` sets at the start of every
step.

Each rank writes its own folder, with a list of its files and their checksums; Ray merges the folders. A
checkpoint that is not whole is refused with the name of the file that is wrong.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from components.core import derive_seed, seed_everything, sha256_file, write_text_atomic

ENGINE_FOLDER = "engine"
STATE_FILE = "state.json"
EMA_FILE = "ema.safetensors"


@dataclass
class TrainState:
    """Where a run is.

    Attributes:
        step: Optimizer steps done.
        sums: Sums over the steps since the last row of the log, by metric.
        world_size: Workers of the process that saved it.
        zero_stage: ZeRO stage of the process that saved it.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    world_size: int = 1
    zero_stage: int = 0


def seed_step(seed: int, step: int, rank: int) -> None:
    """Sets Python's, NumPy's and torch's random state of this rank for a step."""
    seed_everything(derive_seed(seed, "rank", rank, step))


def save_checkpoint(
    engine: Any, folder: Path, state: TrainState, rank: int, ema: dict[str, torch.Tensor] | None
) -> None:
    """Writes this rank's part of a checkpoint; all ranks must call it."""
    engine.save_checkpoint(
        str(folder / ENGINE_FOLDER), tag="state", save_latest=False, exclude_frozen_parameters=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        write_text_atomic(folder / STATE_FILE, json.dumps(asdict(state)))
        if ema is not None:
            from safetensors.torch import save_file

            save_file({name: value.cpu().contiguous() for name, value in ema.items()}, folder / EMA_FILE)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    checksums = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_text_atomic(folder / f"files-{rank}.json", json.dumps(checksums, indent=1))


def load_checkpoint(engine: Any, folder: Path) -> tuple[TrainState, dict[str, torch.Tensor] | None]:
    """Restores weights and optimizer; all ranks must call it.

    Returns:
        Where the run was, and the averaged weights if it keeps them.

    Raises:
        ValueError: The checkpoint is not whole, or its ZeRO state belongs to another number of workers.
    """
    check_checkpoint(folder)
    state = TrainState(**json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
    world_size, stage = torch.distributed.get_world_size(), engine.zero_optimization_stage()
    if stage != state.zero_stage or (stage > 0 and world_size != state.world_size):
        raise ValueError(
            f"the checkpoint {folder.name} was written with {state.world_size} workers at ZeRO stage "
            f"{state.zero_stage}; it can be resumed with the same stage, and beyond stage 0 with the same "
            f"number of workers (found {world_size} workers, stage {stage})"
        )
    loaded, _ = engine.load_checkpoint(
        str(folder / ENGINE_FOLDER), tag="state", load_module_strict=False, load_lr_scheduler_states=False
    )
    if loaded is None:
        raise ValueError(f"DeepSpeed found nothing to load in {folder / ENGINE_FOLDER}")
    ema = None
    if (folder / EMA_FILE).is_file():
        from safetensors.torch import load_file

        ema = load_file(folder / EMA_FILE)
    return state, ema


def check_checkpoint(folder: Path) -> None:
    """Compares a merged checkpoint with the lists of its files.

    Raises:
        ValueError: A file is missing or differs from what was written.
    """
    if not (folder / STATE_FILE).is_file():
        raise ValueError(f"the checkpoint {folder} is not whole: {STATE_FILE} is missing")
    world_size = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["world_size"]
    for rank in range(world_size):
        listing = folder / f"files-{rank}.json"
        if not listing.is_file():
            raise ValueError(f"the checkpoint {folder} is not whole: {listing.name} is missing")
        for name, checksum in json.loads(listing.read_text(encoding="utf-8")).items():
            if not (folder / name).is_file():
                raise ValueError(f"the checkpoint {folder} is not whole: {name} is missing")
            if sha256_file(folder / name) != checksum:
                raise ValueError(f"the checkpoint {folder} is damaged: {name} differs from what was written")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a local folder for one rank's part; Ray copies it to the run's storage."""
    with tempfile.TemporaryDirectory(prefix="photoverse-checkpoint-") as name:
        yield Path(name)
