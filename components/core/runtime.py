"""Device, dtype, seeds and logging: the choices that depend on the machine are made here and nowhere else."""

import logging
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def pick_device(name: str = "auto") -> "torch.device":
    """Returns the torch device: "auto" takes CUDA where there is one, else the CPU."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pick_dtype(device: "torch.device", name: str = "auto") -> "torch.dtype":
    """Returns the floating dtype: "auto" is float32 on a CPU and bfloat16 or float16 on a GPU.

    On a CPU without bfloat16 units that type is 40-90 times slower than float32.

    Raises:
        ValueError: The name is none of auto, float32, bfloat16, float16.
    """
    import torch

    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name in named:
        return named[name]
    if name != "auto":
        raise ValueError(f"dtype {name!r} is not known; allowed: auto, {', '.join(named)}")
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def peak_memory() -> tuple[str, float]:
    """Returns where this process computes, and the most memory that it took there, in GB (10^9 bytes).

    On a GPU what torch allocated, on a CPU the resident memory of the process, Python and weights included.
    """
    import resource

    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return "cpu", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the legacy generator too
    torch.manual_seed(seed)


def derive_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed, a pure function of its parts, for streams that must not depend on order."""
    from hashlib import sha256

    return int.from_bytes(sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def setup_logging(log_file: Path | None = None, level: int = logging.INFO) -> None:
    """Sends logs to stderr and, in full, to `log_file`."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    logging.basicConfig(level=level, format=LOG_FORMAT, handlers=handlers, force=True)
