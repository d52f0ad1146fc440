"""Saving and resuming a run, so that a killed run ends with the weights of one that was not killed.

What is kept: the trained weights and Adam's moments, whole and in float32, the step, and running sums of the
log. What need not be kept: reader position, noise and every other draw are functions of (seed, step), and so
is each rank's random state, which `seed_step` sets at the start of every step. Nothing depends on the number
of workers or the ZeRO stage, so a run may go on with others. There are safetensors and JSON, no pickles.

A checkpoint lists its files with their checksums; one that is not whole is refused, and the fault named.
"""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from components.core import derive_seed, seed_everything, sha256_file, write_text_atomic
from components.training.optimizer_state import (
    gather_state,
    restore_scaler,
    restore_state,
    scaler_state,
)

logger = logging.getLogger(__name__)
STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
EMA_FILE = "ema.safetensors"
FILES_FILE = "files.json"


@dataclass
class TrainState:
    """Where a run is.

    Attributes:
        step: Optimizer steps done.
        sums: Sums over the steps since the last row of the log, by metric.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Sets Python's, NumPy's and torch's random state of this rank for a step."""
    seed_everything(derive_seed(seed, "rank", rank, step))


def save_checkpoint(
    engine: Any, adapter: Any, folder: Path, state: TrainState, ema: dict[str, torch.Tensor] | None
) -> None:
    """Writes a checkpoint on rank 0; all ranks must call it.

    Args:
        engine: DeepSpeed engine.
        adapter: What is trained.
        folder: An empty folder; only rank 0's is filled.
        state: Where the run is.
        ema: Averaged weights, if the run keeps them.
    """
    from safetensors.torch import save_file

    tensors, adam_steps = gather_state(engine, dict(adapter.named_parameters()))
    if torch.distributed.get_rank() != 0:
        return
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS_FILE)
    if ema is not None:
        save_file({name: value.cpu().contiguous() for name, value in ema.items()}, folder / EMA_FILE)
    values = asdict(state) | {"adam_steps": adam_steps, "loss_scaler": scaler_state(engine)}
    write_text_atomic(folder / STATE_FILE, json.dumps(values))
    checksums = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    write_text_atomic(folder / FILES_FILE, json.dumps(checksums, indent=1))


def load_checkpoint(
    engine: Any, adapter: Any, folder: Path
) -> tuple[TrainState, dict[str, torch.Tensor] | None]:
    """Restores weights and optimizer; all ranks must call it.

    Returns:
        Where the run was, and the averaged weights if it keeps them.

    Raises:
        ValueError: The checkpoint is not whole, or belongs to another adapter.
    """
    from safetensors.torch import load_file

    check_checkpoint(folder)
    values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS_FILE)
    restore_state(engine, dict(adapter.named_parameters()), tensors, values["adam_steps"])
    restore_scaler(engine, values["loss_scaler"])
    ema = load_file(folder / EMA_FILE) if (folder / EMA_FILE).is_file() else None
    return TrainState(values["step"], values["sums"]), ema


def check_checkpoint(folder: Path) -> None:
    """Compares a checkpoint with the list of its files.

    Raises:
        ValueError: A file is missing or differs from what was written.
    """
    listing = folder / FILES_FILE
    if not listing.is_file():
        raise ValueError(f"the checkpoint {folder} is not whole: {FILES_FILE} is missing")
    for name, checksum in json.loads(listing.read_text(encoding="utf-8")).items():
        if not (folder / name).is_file():
            raise ValueError(f"the checkpoint {folder} is not whole: {name} is missing")
        if sha256_file(folder / name) != checksum:
            raise ValueError(f"the checkpoint {folder} is damaged: {name} differs from what was written")


def last_whole(latest: Path) -> Path:
    """Returns `latest`, or the newest of the older checkpoints beside it that is whole.

    Raises:
        ValueError: None of them is; the message says what is wrong with the latest.
    """
    older = sorted(
        path for path in latest.parent.glob("checkpoint_*") if path.is_dir() and path.name < latest.name
    )
    fault: ValueError | None = None
    for folder in (latest, *reversed(older)):
        try:
            check_checkpoint(folder)
            return folder
        except ValueError as error:
            fault = fault or error
            logger.warning("%s; looking for an older one", error)
    raise ValueError(f"no checkpoint to resume from: {fault}")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a local folder; Ray copies it to the run's storage."""
    with tempfile.TemporaryDirectory(prefix="photoverse-checkpoint-") as name:
        yield Path(name)
