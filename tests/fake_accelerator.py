"""A device that computes shapes alone: finds what a CPU forgives and a GPU does not.

Tensors live on torch's `meta` device. While the mode is on, every operation is looked at: tensors of two
devices in one operation, doubles, and waits of the CPU for the device are found by name. What is copied back
is zeros.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

COMPONENTS = Path(__file__).resolve().parents[1] / "components"
aten = torch.ops.aten
# moving data between devices is what these are for; indices may lie on the CPU
CROSSING = {aten._to_copy.default, aten.copy_.default, aten.index.Tensor, aten.index_put_.default}


def _our_file() -> str:
    """Returns the innermost file of components/ that is running, "" if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(COMPONENTS):
            return file.relative_to(COMPONENTS.parent).as_posix()
        frame = frame.f_back
    return ""


class FakeAccelerator(TorchDispatchMode):
    """Looks at every operation of a block.

    Attributes:
        mixed: Operation -> number of times that tensors of two devices met in it.
        doubles: File of ours -> times that it made float64 tensors on the accelerator. A backward pass has no
            file; its doubles are those of the forward pass.
        waits: Operation -> times that the CPU asked the accelerator for a value.
        calls: Operations on the accelerator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixed: Counter[str] = Counter()
        self.doubles: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        # a CPU scalar may meet a tensor of any device, as on a GPU
        devices = {tensor.device.type for tensor in given if tensor.dim() or tensor.device.type != "cpu"}
        if function not in CROSSING and len(devices) > 1:
            self.mixed[str(function)] += 1
        if function is aten._local_scalar_dense.default and given[0].device.type == "meta":
            self.waits[str(function)] += 1
            return given[0].dtype != torch.bool and 0
        if function is aten._to_copy.default and given[0].device.type == "meta":
            if torch.device(kwargs.get("device") or "meta").type == "cpu":
                self.waits[str(function)] += 1
                return torch.zeros(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
        if function is aten.copy_.default and [t.device.type for t in given[:2]] == ["cpu", "meta"]:
            self.waits[str(function)] += 1
            return args[0]
        made = function(*args, **kwargs)
        out = [leaf for leaf in tree_flatten(made)[0] if isinstance(leaf, torch.Tensor)]
        self.calls += any(tensor.device.type == "meta" for tensor in out)
        if any(tensor.device.type == "meta" and tensor.dtype == torch.float64 for tensor in out):
            self.doubles[_our_file()] += 1
        return made
