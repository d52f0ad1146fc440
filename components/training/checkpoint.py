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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

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
        position: Place of the reader; None before the first step.
        in_memory: How the reader reads; None before the first step.
        loss_mean: Running mean of the loss, against which an explosion is judged.
        returns: Times that the run has gone back to a checkpoint because of its loss.
        best: Best identity similarity so far; None before the first measurement.
        seconds: What the run has taken so far, without lost attempts.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    position: int | None = None
    in_memory: bool | None = None
    loss_mean: float | None = None
    returns: int = 0
    best: float | None = None
    seconds: float = 0.0

    def copy(self) -> Self:
        """Returns a state of its own."""
        return replace(self, sums=dict(self.sums))

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Reads what a checkpoint says; what an older one does not say is as at the start."""
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint kept in memory on each rank: what a run goes back to when its loss explodes."""

    state: TrainState
    tensors: dict[str, torch.Tensor]
    adam_steps: int
    scaler: dict[str, float]
    ema: dict[str, torch.Tensor] | None

    @classmethod
    def take(cls, engine: Any, adapter: Any, state: TrainState, ema: dict[str, torch.Tensor] | None) -> Self:
        """Collects the state of a run; all ranks must call it."""
        tensors, adam_steps = gather_state(engine, dict(adapter.named_parameters()))
        tensors = {name: value.clone() for name, value in tensors.items()}  # on a CPU they are the weights
        average = None if ema is None else {name: value.cpu().clone() for name, value in ema.items()}
        return cls(state.copy(), tensors, adam_steps, scaler_state(engine), average)

    def put_back(self, engine: Any, adapter: Any) -> None:
        """Restores weights and optimizer; all ranks must call it."""
        restore_state(engine, dict(adapter.named_parameters()), self.tensors, self.adam_steps)
        restore_scaler(engine, self.scaler)


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
    return TrainState.of(values), ema


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
