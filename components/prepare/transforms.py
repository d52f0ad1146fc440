"""Pure functions on one photo: faces -> the ones to keep, face -> crops, facts. No files, no networks.

A photo that cannot be used raises `Reject` with a reason code; the codes are stable, tools may rely on them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from components.face import (
    Face,
    Masker,
    align_face,
    crop_square,
    head_pose,
    masked_crop,
    sharpness,
    transform_points,
)
from components.prepare.config import PrepareConfig

Reason = Literal[
    "missing_file",  # named in metadata.csv, not on disk
    "outside_folder",  # leads out of the source folder
    "unreadable_file",  # the system refuses to read it
    "file_too_large",
    "empty_file",
    "not_an_image",
    "damaged_image",  # truncated or corrupt
    "too_many_pixels",
    "no_face",
    "tiny_face",
    "several_faces",
    "blurred_face",
    "turned_face",
    "duplicate",  # the same bytes as another photo
    "near_duplicate",  # the same picture as another photo: smaller, recompressed, a little brighter
    "internal_error",  # a fault of ours on this photo; the log has it
]


class Reject(Exception):
    """A photo that cannot become a sample.

    Attributes:
        reason: Code from `Reason`.
        detail: What was found, for people.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Cut:
    """What one face of a photo gives. All RGB uint8; S identity side, R target side.

    Attributes:
        crop_uint8: (S, S, 3), nothing masked yet.
        mask_uint8: (S, S), 255 on the face.
        target_uint8: (R, R, 3).
        aligned_uint8: (112, 112, 3).
        target_landmarks_xy: (5, 2) pixels of the target.
    """

    crop_uint8: np.ndarray
    mask_uint8: np.ndarray
    target_uint8: np.ndarray
    aligned_uint8: np.ndarray
    target_landmarks_xy: np.ndarray


def choose_faces(faces: list[Face], policy: str, min_face_px: int) -> list[Face]:
    """Returns the faces of a photo that become samples, largest first.

    Raises:
        Reject: no_face, tiny_face or several_faces.
    """
    if not faces:
        raise Reject("no_face", "no face found")
    large = [face for face in faces if face.size_px >= min_face_px]
    if not large:
        raise Reject("tiny_face", f"largest {faces[0].size_px:.0f} px, at least {min_face_px}")
    if policy == "reject" and len(large) > 1:
        raise Reject("several_faces", f"{len(large)} faces")
    return large if policy == "all" else large[:1]


def cut_face(
    image_uint8: np.ndarray,
    face: Face,
    masker: Masker,
    *,
    identity_expand: float,
    identity_size: int,
    target_expand: float,
    resolution: int,
    aligned_size: int = 112,
    own_mask_uint8: np.ndarray | None = None,
) -> Cut:
    """Cuts identity crop, mask, target and aligned face out of a photo (PhotoVerse Sec. 3, preprocessing).

    The mask is cut out of `own_mask_uint8` (H, W) where the set brings one, else `masker` makes it.
    """
    if own_mask_uint8 is None:
        crop, mask = masked_crop(image_uint8, face, masker, size=identity_size, expand=identity_expand)
    else:
        crop, _ = crop_square(image_uint8, face.bbox_xyxy, identity_expand, identity_size)
        grey, _ = crop_square(
            np.repeat(own_mask_uint8[..., None], 3, 2), face.bbox_xyxy, identity_expand, identity_size
        )
        mask = np.where(grey[..., 0] >= 128, 255, 0).astype(np.uint8)
    target, to_target = crop_square(image_uint8, face.bbox_xyxy, target_expand, resolution)
    return Cut(
        crop_uint8=crop,
        mask_uint8=mask,
        target_uint8=target,
        aligned_uint8=align_face(image_uint8, face.landmarks_xy, aligned_size),
        target_landmarks_xy=transform_points(to_target, face.landmarks_xy),
    )


def check_quality(facts: dict[str, Any], config: PrepareConfig) -> None:
    """Holds the facts of a face against the limits that are set.

    Raises:
        Reject: blurred_face or turned_face.
    """
    if config.min_sharpness is not None and facts["sharpness"] < config.min_sharpness:
        raise Reject("blurred_face", f"sharpness {facts['sharpness']:.1f}, at least {config.min_sharpness:g}")
    for name, limit in (("yaw", config.max_yaw_degrees), ("roll", config.max_roll_degrees)):
        found = facts[f"{name}_degrees"]
        if limit is not None and abs(found) > limit:
            raise Reject("turned_face", f"{name} {found:.0f} degrees, at most {limit:g}")


def face_facts(face: Face, image_uint8: np.ndarray, aligned_uint8: np.ndarray) -> dict[str, Any]:
    """Returns what `meta.json` keeps of a face, in pixels of the upright photo."""
    yaw, roll = head_pose(face.landmarks_xy)
    return {
        "sharpness": round(sharpness(aligned_uint8), 2),
        "yaw_degrees": round(yaw, 1),
        "roll_degrees": round(roll, 1),
        "width": image_uint8.shape[1],
        "height": image_uint8.shape[0],
        "bbox_xyxy": rounded(face.bbox_xyxy),
        "landmarks_xy": rounded(face.landmarks_xy),
        "score": round(face.score, 4),
    }


def rounded(points: np.ndarray) -> list[Any]:
    """Returns coordinates as plain numbers, to a hundredth of a pixel."""
    return np.round(points.astype(np.float64), 2).tolist()
