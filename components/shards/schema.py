"""The one declaration of what a sample holds, and a check of a sample against it.

Symbols: S identity crop side, R target side, m CLIP layers, T tokens a layer (CLS + patch_grid**2), D width
of the image encoder, C latent channels, h w latent size, E identity embedding size.
"""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Sample = dict[str, Any]  # "__key__" and the decoded fields

META_REQUIRED = (
    *("person", "split", "source", "file", "sha256", "width", "height"),
    *("bbox_xyxy", "landmarks_xy", "target_landmarks_xy", "score"),
)
META_OPTIONAL = ("group", "gender", "age", "licence", "consent", "caption", "prompt")


@dataclass(frozen=True)
class Field:
    """One file of a sample.

    Attributes:
        name: File suffix in the tar.
        dtype: NumPy dtype of the decoded array.
        shape: One symbol or number an axis; equal symbols must have equal sizes in one sample.
        low: Smallest value allowed.
        high: Largest value allowed.
        about: What it is, with colour order and units.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    low: float
    high: float
    about: str


FIELDS: tuple[Field, ...] = (
    Field(
        "photo.png",
        "uint8",
        ("S", "S", 3),
        0,
        255,
        "identity crop x_m, RGB, non-face in the encoder's mean colour",
    ),
    Field("mask.png", "uint8", ("S", "S"), 0, 255, "255 on the face, else 0, over photo.png"),
    Field("target.png", "uint8", ("R", "R", 3), 0, 255, "denoising target x_t, RGB"),
    Field(
        "features.npy",
        "float16",
        ("m", "T", "D"),
        -65504,
        65504,
        "raw hidden states: CLS, then pooled patches",
    ),
    Field(
        "latents.npy", "float16", ("2C", "h", "w"), -65504, 65504, "VAE posterior mean, then std, unscaled"
    ),
    Field("identity.npy", "float32", ("E",), -1, 1, "identity embedding of the aligned face, unit norm"),
)
META = "meta.json"
FIELD_NAMES = tuple(field.name for field in FIELDS)
OPTIONAL_FIELDS = (
    "latents.npy",
)  # absent where `encode_latents` is off: the trainer then encodes target.png


def check(sample: Sample, sizes: dict[str, int] | None = None) -> dict[str, int]:
    """Checks a decoded sample against the declaration.

    Args:
        sample: Decoded sample.
        sizes: Sizes that symbols must have, e.g. those of an earlier sample.

    Returns:
        The size of each symbol.

    Raises:
        ValueError: A field is missing, unknown, or of another dtype, shape or range; the message names sample
            and field.
    """
    key, sizes = sample.get("__key__", "?"), dict(sizes or {})
    _check_names(key, sample)
    for field in FIELDS:
        if field.name in sample:
            fault = _fault(field, sample[field.name], sizes)
            if fault:
                raise ValueError(f"sample {key}, field {field.name}: {fault}")
    norm = float(np.linalg.norm(sample["identity.npy"]))
    if abs(norm - 1) > 1e-3:
        raise ValueError(f"sample {key}, field identity.npy: norm {norm:.4f}, expected 1")
    if not np.isin(sample["mask.png"], (0, 255)).all():
        raise ValueError(f"sample {key}, field mask.png: values other than 0 and 255")
    missing = [name for name in META_REQUIRED if sample[META].get(name) is None]
    if missing:
        raise ValueError(f"sample {key}, field {META}: no {', '.join(missing)}")
    return sizes


def encode(sample: Sample) -> dict[str, Any]:
    """Turns a decoded sample into bytes; the same sample always gives the same bytes."""
    encoded: dict[str, Any] = {"__key__": sample["__key__"]}
    for field in FIELDS:
        if field.name in sample:
            encoded[field.name] = _to_bytes(field.name, sample[field.name])
    encoded[META] = json.dumps(sample[META], sort_keys=True, ensure_ascii=False).encode()
    return encoded


def decode(encoded: dict[str, Any], fields: Iterable[str] | None = None) -> Sample:
    """Turns bytes back into a sample.

    Args:
        encoded: File suffix -> bytes, and "__key__".
        fields: Fields to decode; None takes all. `meta.json` is always decoded.

    Raises:
        ValueError: A field cannot be decoded or is not there.
    """
    names = [name for name in FIELD_NAMES if name in encoded] if fields is None else list(fields)
    sample: Sample = {"__key__": encoded["__key__"]}
    for name in [*names, META]:
        if name not in encoded:
            raise ValueError(f"sample {encoded['__key__']} has no {name}; it has {sorted(encoded)}")
        try:
            sample[name] = _from_bytes(name, encoded[name])
        except Exception as error:  # each decoder has its own kinds
            raise ValueError(f"sample {encoded['__key__']}, field {name}: {error}") from error
    return sample


def _check_names(key: str, sample: Sample) -> None:
    found = {name for name in sample if not name.startswith("__")}
    missing = {*FIELD_NAMES, META} - {*OPTIONAL_FIELDS} - found
    unknown = found - {*FIELD_NAMES, META}
    if missing or unknown:
        raise ValueError(f"sample {key}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")


def _fault(field: Field, value: Any, sizes: dict[str, int]) -> str | None:
    if not isinstance(value, np.ndarray) or value.dtype != field.dtype:
        return f"expected {field.dtype}, found {getattr(value, 'dtype', type(value).__name__)}"
    if value.ndim != len(field.shape):
        return f"expected {len(field.shape)} axes {field.shape}, found shape {value.shape}"
    for axis, size in zip(field.shape, value.shape, strict=True):
        wanted = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
        if wanted != size:
            return f"axis {axis} is {size}, expected {wanted}; shape {value.shape}"
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return "values that are not finite"
    if value.size and not (field.low - 1e-6 <= value.min() and value.max() <= field.high + 1e-6):
        return f"values {value.min()}..{value.max()}, allowed {field.low}..{field.high}"
    return None


def _to_bytes(name: str, array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    if name.endswith(".png"):
        from PIL import Image

        Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    else:
        np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _from_bytes(name: str, data: bytes) -> Any:
    if name.endswith(".json"):
        return json.loads(data)
    return _read_npy(data) if name.endswith(".npy") else _read_png(data)


def _read_png(data: bytes) -> np.ndarray:
    """Returns uint8 (H, W, 3) RGB or (H, W)."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("no readable PNG")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture


def _read_npy(data: bytes) -> np.ndarray:
    """Reads an array; the header, the same in every sample, is parsed once: it takes most of the time."""
    start = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _npy_header(data[:start])
    return np.frombuffer(data, dtype, offset=start).reshape(shape).copy()


@lru_cache(maxsize=256)
def _npy_header(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an .npy file of version 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran_order or dtype.hasobject:
        raise ValueError(f"an .npy of {dtype} in {'Fortran' if fortran_order else 'C'} order is never read")
    return dtype, shape
