"""An ArcFace ONNX as a differentiable, frozen torch module.

Inside: a small interpreter for the operators that identity networks are made of (iresnet, MobileFaceNet and
their like), and `load_arcface`, which adapts such a network to RGB images in [-1, 1]. Not inside: training of
ONNX weights, control flow, quantised operators, anything recurrent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.face.onnx_ops import OPERATORS

# insightface's rule: a network that begins with its own Sub and Mul wants raw pixels, not (x - 127.5) / 127.5
NORMALISING_PREFIX = 8


@dataclass(frozen=True)
class _Step:
    """One node of the graph: names of inputs ("" = absent) and outputs, and what computes them."""

    name: str
    compute: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead_after: tuple[str, ...]


class OnnxModule(nn.Module):
    """Runs an ONNX graph with torch operators, so that gradients flow to its input.

    Floating-point weights are buffers (frozen, they follow `.to(...)`); integer constants describe shapes and
    stay on the CPU.

    Args:
        model: A loaded ONNX model with exactly one input besides its weights; the first output is returned.

    Raises:
        ValueError: The graph holds an operator that is not known, or has several inputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        opset = max(
            (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=13
        )
        _refuse_unknown_operators(graph)
        self._shape_constants: dict[str, Tensor] = {}
        self._buffer_of: dict[str, str] = {}
        for initializer in graph.initializer:
            self._add_constant(initializer.name, onnx.numpy_helper.to_array(initializer))
        inputs = [entry.name for entry in graph.input if not self._is_constant(entry.name)]
        if len(inputs) != 1:
            raise ValueError(f"expected an ONNX graph with one input, found {len(inputs)}: {inputs}")
        self.input_name, self.output_name = inputs[0], graph.output[0].name
        self._steps = self._plan(graph, opset)
        self.eval()

    def _is_constant(self, name: str) -> bool:
        return name in self._buffer_of or name in self._shape_constants

    def _add_constant(self, name: str, value: np.ndarray) -> None:
        tensor = torch.from_numpy(np.array(value))
        if not tensor.is_floating_point():
            self._shape_constants[name] = tensor
            return
        self._buffer_of[name] = f"constant_{len(self._buffer_of)}"
        self.register_buffer(self._buffer_of[name], tensor)

    def _plan(self, graph: onnx.GraphProto, opset: int) -> list[_Step]:
        """Turns nodes into steps; `Constant` nodes become constants; values die after their last use."""
        nodes = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._add_constant(node.output[0], _constant_value(attributes))
            else:
                nodes.append((node, attributes))
        last_use = {name: i for i, (node, _) in enumerate(nodes) for name in node.input}
        steps = []
        for i, (node, attributes) in enumerate(nodes):
            dead = {name for name in node.input if last_use[name] == i and not self._is_constant(name)}
            dead |= {name for name in node.output if name not in last_use}
            dead -= {self.output_name, ""}
            compute = OPERATORS[node.op_type](attributes, opset)
            names = (tuple(node.input), tuple(node.output), tuple(sorted(dead)))
            steps.append(_Step(f"{node.op_type} {node.name}".strip(), compute, *names))
        return steps

    def forward(self, images: Tensor) -> Tensor:
        """Returns the graph's first output for `images` (B, 3, H, W), differentiable in `images`."""
        values: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        values |= self._shape_constants
        values[self.input_name] = images
        for step in self._steps:
            arguments = [values[name] if name else None for name in step.inputs]
            try:
                result = step.compute(*arguments)
            except RuntimeError as error:
                raise RuntimeError(f"ONNX node {step.name!r} failed: {error}") from error
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False))
            for name in step.dead_after:
                values.pop(name, None)
        return values[self.output_name]


class DifferentiableArcFace(nn.Module):
    """An ArcFace network on RGB images in [-1, 1].

    Attributes:
        raw_pixels: The graph normalises for itself and is fed [0, 255], as insightface decides it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.network = OnnxModule(model)
        first = {node.op_type for node in list(model.graph.node)[:NORMALISING_PREFIX]}
        self.raw_pixels = {"Sub", "Mul"} <= first
        self.requires_grad_(False)

    def forward(self, images_m11: Tensor) -> Tensor:
        """Returns embeddings (B, D), not normalised, of aligned faces (B, 3, 112, 112), RGB in [-1, 1]."""
        return self.network((images_m11 + 1) * 127.5 if self.raw_pixels else images_m11)

    def embed(self, images_m11: Tensor) -> Tensor:
        """The same with unit norm: (B, D), ready for cosine similarity."""
        return F.normalize(self(images_m11).float(), dim=-1)


def load_arcface(onnx_path: Path | str) -> DifferentiableArcFace:
    """Reads an insightface-style recognition network (112 x 112, RGB, (x - 127.5) / 127.5).

    Raises:
        ValueError: No such file, not an ONNX model, or a graph this interpreter does not know.
    """
    path = Path(onnx_path)
    if not path.is_file():
        raise ValueError(f"no identity network at {path}: expected an ArcFace ONNX file")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # onnx raises protobuf's own errors, which are no common class
        raise ValueError(f"{path} is not a readable ONNX model: {error}") from error
    try:
        return DifferentiableArcFace(model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _constant_value(attributes: dict[str, Any]) -> np.ndarray:
    if "value" in attributes:
        return onnx.numpy_helper.to_array(attributes["value"])
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, dtype in kinds.items():
        if name in attributes:
            return np.asarray(attributes[name], dtype=dtype)
    raise ValueError(f"a Constant node holds {sorted(attributes)}, expected one of value, {', '.join(kinds)}")


def _refuse_unknown_operators(graph: onnx.GraphProto) -> None:
    unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys() - {"Constant"})
    if unknown:
        raise ValueError(
            f"the ONNX graph uses operators that are not known here: {', '.join(unknown)}; "
            f"known: {', '.join(sorted(OPERATORS))}"
        )
