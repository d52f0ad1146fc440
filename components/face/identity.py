"""Aligned face -> unit-norm identity embedding, through an ArcFace-style ONNX in ONNX Runtime.

Not inside: the differentiable twin for losses (`onnx_torch.py`).
"""

from pathlib import Path

import numpy as np

from components.face.config import FaceConfig
from components.face.detect import check_pack
from components.face.sessions import open_session


class IdentityEncoder:
    """An ArcFace ONNX in ONNX Runtime: input (B, 3, 112, 112) RGB, (x - 127.5) / 127.5; output (B, D).

    Args:
        onnx_path: The ONNX file.
        device: "cpu" or "cuda[:n]".

    Raises:
        ValueError: The file is missing or is not a square-input, one-output network of 112 px or more.
    """

    def __init__(self, onnx_path: str | Path, device: str = "cpu") -> None:
        self._session = open_session(Path(onnx_path), device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        if not _is_identity_net(self._session):
            raise ValueError(
                f"{onnx_path} is no ArcFace-style network: expected a square input (B, 3, 112, 112)"
                f" and one output (B, D); found input {shape} and {len(outputs)} outputs"
            )
        self._name = inputs[0].name
        self._batch = shape[0] if isinstance(shape[0], int) else None
        self.input_size: int = shape[2]
        self.size: int = int(self._run(np.zeros((1, 3, shape[2], shape[2]), np.float32)).shape[1])

    def embed(self, aligned_uint8: np.ndarray) -> np.ndarray:
        """Returns float32 (B, D), each of length 1.

        Args:
            aligned_uint8: (B, S, S, 3) RGB faces from `align_face`, S the network's input size.

        Raises:
            ValueError: Another shape or dtype.
        """
        side = self.input_size
        if aligned_uint8.dtype != np.uint8 or aligned_uint8.shape[1:] != (side, side, 3):
            raise ValueError(
                f"expected uint8 (B, {side}, {side}, 3), found {aligned_uint8.dtype} {aligned_uint8.shape}"
            )
        pixels = (aligned_uint8.astype(np.float32) - 127.5) / 127.5
        raw = self._run(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        if self._batch is None:
            return self._session.run(None, {self._name: pixels})[0]
        parts = [pixels[i : i + self._batch] for i in range(0, len(pixels), self._batch)]
        rows = [
            self._session.run(None, {self._name: _padded(part, self._batch)})[0][: len(part)]
            for part in parts
        ]
        return np.concatenate(rows)


def identity_onnx_path(config: FaceConfig, base: Path | None = None) -> Path:
    """Returns the identity network: `identity_onnx`, else the pack's, else that of the base's `face_pack`.

    Raises:
        ValueError: None of them exists; the message says where was looked.
    """
    if config.identity_onnx is not None:
        path = Path(config.identity_onnx).expanduser()
        if not path.is_file():
            raise ValueError(f"no identity network at face.identity_onnx = {path}")
        return path
    folders = [check_pack(config.pack)] if config.pack is not None else []
    folders += [base / "face_pack"] if base is not None else []
    for folder in folders:
        found = find_identity_onnx(folder)
        if found is not None:
            return found
    looked = ", ".join(map(str, folders)) or "nowhere"
    raise ValueError(f"no identity network: set face.identity_onnx or face.pack (looked in {looked})")


def find_identity_onnx(folder: Path) -> Path | None:
    """Returns `identity.onnx` of a pack folder, else its first ArcFace-style ONNX by name, else None."""
    named = folder / "identity.onnx"
    if named.is_file():
        return named
    for path in sorted(folder.glob("*.onnx")):
        if _is_identity_net(open_session(path)):
            return path
    return None


def _is_identity_net(session: object) -> bool:
    inputs, outputs = session.get_inputs(), session.get_outputs()  # type: ignore[attr-defined]
    shape = inputs[0].shape
    square = len(shape) == 4 and isinstance(shape[2], int) and shape[2] == shape[3] and shape[2] % 112 == 0
    return len(inputs) == 1 and len(outputs) == 1 and square and len(outputs[0].shape) == 2


def _padded(batch: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(batch)
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch
