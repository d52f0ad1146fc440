"""The moments of bitsandbytes' 8-bit Adam in and out of a checkpoint: blocks and scales as they are.

They are cut into blocks of 256 along the tensors that the optimizer steps, so they are kept by rank and place
rather than by parameter; taking them apart and quantising them anew would not give the same numbers.
"""

from typing import Any

import torch
from torch import Tensor

BLOCKS = "blocks/"


def is_8bit(optimizer: Any) -> bool:
    """Whether the optimizer is one of bitsandbytes."""
    return type(optimizer).__module__.partition(".")[0] == "bitsandbytes"


def gather_blocks(flats: list[Tensor], optimizer: Any) -> dict[str, Tensor]:
    """Returns "blocks/rank/place/name" -> tensor of all ranks; all ranks must call it.

    Args:
        flats: What the optimizer steps on this rank, in the same order and shapes on each.
        optimizer: Of bitsandbytes.
    """
    found: dict[str, Tensor] = {}
    for place, flat in enumerate(flats):
        state = optimizer.state.get(flat, {})
        for name, value in sorted(state.items()):
            if torch.is_tensor(value):
                parts = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
                torch.distributed.all_gather(parts, value.contiguous())
                found |= {f"{BLOCKS}{rank}/{place}/{name}": part.cpu() for rank, part in enumerate(parts)}
    return found


def restore_blocks(flats: list[Tensor], optimizer: Any, tensors: dict[str, Tensor], steps: int) -> None:
    """Gives this rank its blocks back.

    Raises:
        ValueError: The checkpoint is of another number of workers, or of another optimizer.
    """
    ranks = {name.split("/")[1] for name in tensors if name.startswith(BLOCKS)}
    if len(ranks) != torch.distributed.get_world_size():
        raise ValueError(
            f"the checkpoint holds 8-bit moments of {len(ranks)} workers and fits that number only, found "
            f"{torch.distributed.get_world_size()}"
        )
    for place, flat in enumerate(flats):
        start = f"{BLOCKS}{torch.distributed.get_rank()}/{place}/"
        state = {
            name.removeprefix(start): value.to(flat.device)
            for name, value in tensors.items()
            if name.startswith(start)
        }
        optimizer.state[flat] = {"step": steps, **state}
