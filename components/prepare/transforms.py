"""Pure functions on one photo: faces -> the ones to keep, face -> crops, facts. No files, no networks.

A photo that cannot be used raises `Reject` with a reason code; the codes are stable, tools may rely on them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from components.face import Face, Masker, align_face, crop_square, masked_crop, transform_points

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
    "duplicate",  # the same bytes as another photo
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
) -> Cut:
    """Cuts identity crop, mask, target and aligned face out of a photo (PhotoVerse Sec. 3, preprocessing)."""
    crop, mask = masked_crop(image_uint8, face, masker, size=identity_size, expand=identity_expand)
    target, to_target = crop_square(image_uint8, face.bbox_xyxy, target_expand, resolution)
    return Cut(
        crop_uint8=crop,
        mask_uint8=mask,
        target_uint8=target,
        aligned_uint8=align_face(image_uint8, face.landmarks_xy, aligned_size),
        target_landmarks_xy=transform_points(to_target, face.landmarks_xy),
    )


def face_facts(face: Face, image_uint8: np.ndarray) -> dict[str, Any]:
    """Returns what `meta.json` keeps of a face, in pixels of the upright photo."""
    return {
        "width": image_uint8.shape[1],
        "height": image_uint8.shape[0],
        "bbox_xyxy": rounded(face.bbox_xyxy),
        "landmarks_xy": rounded(face.landmarks_xy),
        "score": round(face.score, 4),
    }


def rounded(points: np.ndarray) -> list[Any]:
    """Returns coordinates as plain numbers, to a hundredth of a pixel."""
    return np.round(points.astype(np.float64), 2).tolist()
