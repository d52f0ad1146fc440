"""The ONNX operators of identity networks as torch functions.

Each entry of `OPERATORS` takes a node's attributes and the model's opset and returns a function of its
inputs (absent optional inputs are None). Semantics: https://onnx.ai/onnx/operators, inference mode.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]
Compute = Callable[..., Any]


def _ints(values: Any) -> list[int]:
    """Integers of a shape, axes or index input, wherever they are stored."""
    if isinstance(values, Tensor):
        return [int(v) for v in values.reshape(-1).tolist()]
    return [int(v) for v in ([values] if isinstance(values, int) else values)]


def _plain(function: Compute) -> Callable[[Attributes, int], Compute]:
    """An operator without attributes."""
    return lambda attributes, opset: function


def _pad_for(x: Tensor, attributes: Attributes, kernel: Sequence[int], value: float = 0.0) -> Tensor:
    """Pads the spatial dimensions as `pads` or `auto_pad` say; asymmetric padding is allowed."""
    spatial = len(kernel)
    strides = attributes.get("strides", [1] * spatial)
    dilations = attributes.get("dilations", [1] * spatial)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small, large = total // 2, total - total // 2
            begins.append(small if auto == "SAME_UPPER" else large)
            ends.append(large if auto == "SAME_UPPER" else small)
    else:
        pads = attributes.get("pads", [0] * (2 * spatial))
        begins, ends = list(pads[:spatial]), list(pads[spatial:])
    if not any(begins) and not any(ends):
        return x
    pairs = [side for pair in zip(reversed(begins), reversed(ends), strict=True) for side in pair]
    return F.pad(x, pairs, value=value)


def _conv(attributes: Attributes, opset: int) -> Compute:
    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.dim()]
        spatial = weight.dim() - 2
        padded = _pad_for(x, attributes, weight.shape[2:])
        stride, dilation = (
            attributes.get("strides", [1] * spatial),
            attributes.get("dilations", [1] * spatial),
        )
        return function(padded, weight, bias, tuple(stride), 0, tuple(dilation), attributes.get("group", 1))

    return compute


def _max_pool(attributes: Attributes, opset: int) -> Compute:
    kernel = list(attributes["kernel_shape"])
    stride = list(attributes.get("strides", [1] * len(kernel)))
    dilation = list(attributes.get("dilations", [1] * len(kernel)))
    ceil = bool(attributes.get("ceil_mode", 0))

    def compute(x: Tensor) -> Tensor:
        padded = _pad_for(x, attributes, kernel, value=float("-inf"))
        return F.max_pool2d(padded, kernel, stride, 0, dilation, ceil_mode=ceil)

    return compute


def _average_pool(attributes: Attributes, opset: int) -> Compute:
    kernel = list(attributes["kernel_shape"])
    stride = list(attributes.get("strides", [1] * len(kernel)))

    def compute(x: Tensor) -> Tensor:
        mean = F.avg_pool2d(_pad_for(x, attributes, kernel), kernel, stride)
        if attributes.get("count_include_pad", 0):
            return mean
        inside = torch.ones_like(x[:1, :1])
        return mean / F.avg_pool2d(_pad_for(inside, attributes, kernel), kernel, stride)

    return compute


def _batch_norm(attributes: Attributes, opset: int) -> Compute:
    epsilon = attributes.get("epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)

    return compute


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    """`slope` broadcasts to `x` from the right, e.g. (C, 1, 1) for images."""
    if x.dim() > 1 and slope.dim() == x.dim() - 1 and slope.numel() == x.shape[1] == slope.shape[0]:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, slope * x)


def _gemm(attributes: Attributes, opset: int) -> Compute:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.T if attributes.get("transA", 0) else a
        b = b.T if attributes.get("transB", 0) else b
        product = a @ b if alpha == 1.0 else alpha * (a @ b)
        return product if c is None else product + (c if beta == 1.0 else beta * c)

    return compute


def _clip(attributes: Attributes, opset: int) -> Compute:
    def compute(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        smallest = attributes.get("min") if low is None else low.to(x)
        largest = attributes.get("max") if high is None else high.to(x)
        return x if smallest is None and largest is None else torch.clamp(x, smallest, largest)

    return compute


def _flatten(attributes: Attributes, opset: int) -> Compute:
    axis = attributes.get("axis", 1)

    def compute(x: Tensor) -> Tensor:
        rows = 1
        for size in x.shape[: axis if axis >= 0 else x.dim() + axis]:
            rows *= size
        return x.reshape(rows, -1)

    return compute


def _reshape(attributes: Attributes, opset: int) -> Compute:
    def compute(x: Tensor, shape: Tensor | None = None) -> Tensor:
        wanted = _ints(attributes["shape"] if shape is None else shape)
        if not attributes.get("allowzero", 0):  # 0 keeps the input's size at that place
            wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        return x.reshape(wanted)

    return compute


def _with_axes(
    function: Callable[[Tensor, list[int] | None], Tensor],
) -> Callable[[Attributes, int], Compute]:
    """An operator whose axes are an attribute in old opsets and an input in new ones."""

    def build(attributes: Attributes, opset: int) -> Compute:
        def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
            found = attributes.get("axes") if axes is None else axes
            return function(x, None if found is None else _ints(found))

        return compute

    return build


def _unsqueeze(x: Tensor, axes: list[int] | None) -> Tensor:
    rank = x.dim() + len(axes or [])
    for axis in sorted(axis % rank for axis in axes or []):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: list[int] | None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _reduce(function: Callable[..., Tensor]) -> Callable[[Attributes, int], Compute]:
    def build(attributes: Attributes, opset: int) -> Compute:
        keep = bool(attributes.get("keepdims", 1))

        def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
            found = attributes.get("axes") if axes is None else axes
            if found is None and attributes.get("noop_with_empty_axes", 0):
                return x
            dims = list(range(x.dim())) if found is None else _ints(found)
            return function(x, dim=dims, keepdim=keep)

        return compute

    return build


def _l2(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)


def _lp_normalization(attributes: Attributes, opset: int) -> Compute:
    return lambda x: (
        x
        / torch.linalg.vector_norm(
            x, ord=attributes.get("p", 2), dim=attributes.get("axis", -1), keepdim=True
        )
    )


def _gather(attributes: Attributes, opset: int) -> Compute:
    axis = attributes.get("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        size = x.shape[axis]
        flat = torch.where(indices < 0, indices + size, indices).to(x.device).reshape(-1)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis % x.dim() + 1 :])
        return x.index_select(axis, flat).reshape(shape)

    return compute


def _slice(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = _ints(starts), _ints(ends)
    dims = list(range(len(first))) if axes is None else _ints(axes)
    strides = [1] * len(first) if steps is None else _ints(steps)
    index: list[slice] = [slice(None)] * x.dim()
    for dim, low, high, stride in zip(dims, first, last, strides, strict=True):
        if stride < 1:
            raise ValueError(f"Slice with step {stride} is not known here; only positive steps are")
        index[dim] = slice(low, high, stride)
    return x[tuple(index)]


def _cast(attributes: Attributes, opset: int) -> Compute:
    import onnx

    numpy_dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    return lambda x: x.to(getattr(torch, str(numpy_dtype)))


def _hard_sigmoid(attributes: Attributes, opset: int) -> Compute:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _leaky_relu(attributes: Attributes, opset: int) -> Compute:
    return lambda x: F.leaky_relu(x, attributes.get("alpha", 0.01))


def _transpose(attributes: Attributes, opset: int) -> Compute:
    return lambda x: x.permute(*attributes.get("perm", reversed(range(x.dim()))))


def _concat(attributes: Attributes, opset: int) -> Compute:
    return lambda *parts: torch.cat(parts, dim=attributes["axis"])


def _softmax(attributes: Attributes, opset: int) -> Compute:
    return lambda x: torch.softmax(x, dim=attributes.get("axis", -1))


OPERATORS: dict[str, Callable[[Attributes, int], Compute]] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Dropout": _plain(lambda x, *_: x),
    "Exp": _plain(torch.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(lambda x: x.mean(dim=tuple(range(2, x.dim())), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "LeakyRelu": _leaky_relu,
    "LpNormalization": _lp_normalization,
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": _plain(_prelu),
    "Pow": _plain(torch.pow),
    "ReduceL2": _reduce(_l2),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Shape": _plain(lambda x: torch.tensor(x.shape, dtype=torch.int64)),
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _plain(_slice),
    "Softmax": _softmax,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _with_axes(_squeeze),
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _with_axes(_unsqueeze),
}
