"""Faces: found, cut out, masked, aligned and told apart. Shared by preparation, losses and measures.

Names are loaded when first used, so that whoever needs only NumPy and OpenCV never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.face.align import (
        ARCFACE_TEMPLATE_XY,
        align_face,
        crop_square,
        similarity_transform,
        transform_points,
    )
    from components.face.config import FaceConfig
    from components.face.crops import identity_crop, masked_crop, paint_outside
    from components.face.detect import Detector, Face, load_detector
    from components.face.identity import IdentityEncoder, identity_onnx_path
    from components.face.mask import Masker, load_masker
    from components.face.onnx_torch import DifferentiableArcFace, load_arcface
    from components.face.parts import part_of, parts_mask
    from components.face.photo import PhotoError, decode_photo
    from components.face.quality import head_pose, sharpness
    from components.face.warp import aligned_centres, warp_faces

_HOME = {
    "ARCFACE_TEMPLATE_XY": "align",
    "Detector": "detect",
    "DifferentiableArcFace": "onnx_torch",
    "Face": "detect",
    "FaceConfig": "config",
    "IdentityEncoder": "identity",
    "Masker": "mask",
    "PhotoError": "photo",
    "align_face": "align",
    "aligned_centres": "warp",
    "crop_square": "align",
    "decode_photo": "photo",
    "head_pose": "quality",
    "identity_crop": "crops",
    "identity_onnx_path": "identity",
    "load_arcface": "onnx_torch",
    "load_detector": "detect",
    "load_masker": "mask",
    "masked_crop": "crops",
    "paint_outside": "crops",
    "part_of": "parts",
    "parts_mask": "parts",
    "sharpness": "quality",
    "similarity_transform": "align",
    "transform_points": "align",
    "warp_faces": "warp",
}

__all__ = [
    "ARCFACE_TEMPLATE_XY",
    "Detector",
    "DifferentiableArcFace",
    "Face",
    "FaceConfig",
    "IdentityEncoder",
    "Masker",
    "PhotoError",
    "align_face",
    "aligned_centres",
    "crop_square",
    "decode_photo",
    "head_pose",
    "identity_crop",
    "identity_onnx_path",
    "load_arcface",
    "load_detector",
    "load_masker",
    "masked_crop",
    "paint_outside",
    "part_of",
    "parts_mask",
    "sharpness",
    "similarity_transform",
    "transform_points",
    "warp_faces",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
