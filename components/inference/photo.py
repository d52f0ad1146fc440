"""A photo, wherever it comes from -> RGB pixels, its face, and the crops that PhotoVerse works with."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from components.face import Face, crop_square, decode_photo, identity_crop
from components.inference.config import PhotoRules

FaceFault = Literal["no_face", "tiny_face", "several_faces"]


class FaceError(ValueError):
    """A photo whose face cannot be used: the fault is in the photo, and the caller's to mend.

    Attributes:
        reason: Stable code, the same as in preparation's rejects.
    """

    def __init__(self, reason: FaceFault, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


PhotoLike = Path | str | bytes | np.ndarray | Image.Image


def read_photo(photo: PhotoLike, rules: PhotoRules) -> np.ndarray:
    """Returns the photo as people see it: uint8 RGB (H, W, 3), turned as its EXIF says.

    Args:
        photo: Path, file content, RGB array or Pillow image.
        rules: Limits.

    Raises:
        ValueError: It is missing, no picture, damaged, or too large.
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[-1] != 3:
            raise ValueError(f"a photo array must be uint8 (H, W, 3), found {photo.dtype} {photo.shape}")
        return photo
    if isinstance(photo, Image.Image):
        return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    data = photo if isinstance(photo, bytes) else _read_file(Path(photo), rules.max_file_mb)
    return decode_photo(data, rules.max_pixels)


def _read_file(path: Path, max_mb: int) -> bytes:
    if not path.is_file():
        raise ValueError(f"no photo at {path}")
    size = path.stat().st_size
    if size > max_mb * 2**20:
        raise ValueError(f"the photo {path.name} has {size / 2**20:.0f} MB; allowed: {max_mb}")
    return path.read_bytes()


def find_face(image_uint8: np.ndarray, detector: Any, rules: PhotoRules) -> Face:
    """Returns the largest face.

    Raises:
        FaceError: There is none, it is too small, or there are several and the rules want one alone.
    """
    faces = detector(image_uint8)
    if not faces:
        raise FaceError("no_face", "no face found in the photo")
    if faces[0].size_px < rules.min_face_px:
        found = f"the face is {faces[0].size_px:.0f} px wide; at least {rules.min_face_px} needed"
        raise FaceError("tiny_face", found)
    large = sum(face.size_px >= rules.min_face_px for face in faces)
    if rules.several_faces == "reject" and large > 1:
        found = f"several faces in the photo ({large}): crop it to the one that is meant"
        raise FaceError("several_faces", found)
    return faces[0]


def crop_identity(
    image_uint8: np.ndarray, face: Face, masker: Any, extractor: Any, rules: PhotoRules
) -> np.ndarray:
    """Returns x_m of a photo for a `FeatureExtractor`, the very crop that preparation cuts."""
    return identity_crop(
        image_uint8,
        face,
        masker,
        size=extractor.size,
        fill_rgb=extractor.fill_rgb_uint8,
        expand=rules.identity_expand,
    )


def crop_start(image_uint8: np.ndarray, detector: Any, size: int, rules: PhotoRules) -> Image.Image:
    """Returns the square around the face that image-to-image starts from, as the training targets are cut."""
    face = find_face(image_uint8, detector, rules)
    return Image.fromarray(crop_square(image_uint8, face.bbox_xyxy, rules.target_expand, size)[0])
