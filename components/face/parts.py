"""Face masks that a set brings along: CelebAMask-HQ's one picture a part of the face."""

from collections.abc import Mapping

import cv2
import numpy as np

from components.face.config import FaceConfig

# In the order in which CelebAMask-HQ paints them, later ones over earlier ones; the class id is 1 + the
# place. The public SegFormer face parsers were trained on these very classes: one table of classes serves
# both.
PARTS = (
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)


def part_of(file: str) -> str:
    """Returns the part that a mask file shows: "0/00000_l_brow.png" -> "l_brow"."""
    return file.rsplit("/", 1)[-1].rsplit(".", 1)[0].split("_", 1)[-1]


def parts_mask(parts: Mapping[str, np.ndarray], shape_hw: tuple[int, int], config: FaceConfig) -> np.ndarray:
    """Returns the mask of a whole photo, uint8 (H, W), 255 on what counts as face.

    Args:
        parts: Part -> picture (h, w) or (h, w, 3) uint8, bright on the part; any size.
        shape_hw: Height and width of the photo.
        config: `segformer_face_classes`, and hair by `mask_hair`.

    Raises:
        ValueError: A part that CelebAMask-HQ does not have.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"mask parts {unknown} are not known; known: {', '.join(PARTS)}")
    classes = config.segformer_face_classes
    if config.mask_hair:
        classes = (*classes, config.segformer_hair_class)
    labels = np.zeros(shape_hw, np.uint8)
    for number, part in enumerate(PARTS, start=1):
        if part in parts:
            picture = parts[part] if parts[part].ndim == 2 else parts[part][..., 0]
            size = (shape_hw[1], shape_hw[0])
            labels[cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST) >= 128] = number
    return np.where(np.isin(labels, classes), 255, 0).astype(np.uint8)
