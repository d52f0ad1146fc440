"""ONNX Runtime sessions on the right device with the right number of threads."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def providers(device: str) -> list[str]:
    """Returns the execution providers for "cpu" or "cuda[:n]", best first; the CPU always comes last.

    Raises:
        ValueError: CUDA is asked for and this build of ONNX Runtime has none.
    """
    import onnxruntime

    if device.startswith("cpu"):
        return ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise ValueError(f"device {device!r} needs onnxruntime-gpu; this build offers {', '.join(available)}")
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def session_options() -> "onnxruntime.SessionOptions":
    """Returns quiet options that keep to OMP_NUM_THREADS (Ray sets it for each actor); else all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    return options


def open_session(model: Path | bytes, device: str = "cpu") -> "onnxruntime.InferenceSession":
    """Opens an ONNX file or its bytes.

    Raises:
        ValueError: The file is missing or is not a usable ONNX model.
    """
    import onnxruntime

    if isinstance(model, Path) and not model.is_file():
        raise ValueError(f"no ONNX file at {model}")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, session_options(), providers=providers(device))
    except Exception as error:  # onnxruntime's own exception classes are not public
        name = "ONNX bytes" if isinstance(model, bytes) else str(model)
        raise ValueError(f"{name} cannot be opened as an ONNX model: {error}") from error
