"""Pure functions on one photo: bytes -> RGB, faces -> the ones to keep, face -> crops. No files, no networks.

A photo that cannot be used raises `Reject` with a reason code; the codes are stable, tools may rely on them.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.face import Face, Masker, align_face, crop_square, transform_points

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

# What photos come as. No EPS, PDF or other formats that run programs or hide pages.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")


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


def decode_photo(data: bytes, max_pixels: int) -> np.ndarray:
    """Returns the photo as people see it: uint8 RGB (H, W, 3), turned as its EXIF says, first frame.

    Raises:
        Reject: empty_file, not_an_image, too_many_pixels or damaged_image.
    """
    if not data:
        raise Reject("empty_file", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow warns of large images and odd metadata; both are handled here
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
        except Image.DecompressionBombError as error:
            raise Reject("too_many_pixels", str(error)) from error
        except UnidentifiedImageError as error:
            raise Reject("not_an_image", f"starts with {data[:8]!r}") from error
        except Exception as error:  # a broken header raises whatever the format's parser does
            raise Reject("damaged_image", f"{type(error).__name__}: {error}") from error
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise Reject("too_many_pixels", f"{width} x {height}, at most {max_pixels} pixels")
            try:
                return np.asarray(to_rgb(_upright(image)))
            except Exception as error:
                raise Reject("damaged_image", f"{type(error).__name__}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB: transparency over white, 16 bits scaled to 8, CMYK and palettes by Pillow."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


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
    crop, to_crop = crop_square(image_uint8, face.bbox_xyxy, identity_expand, identity_size)
    contour = None if face.contour_xy is None else transform_points(to_crop, face.contour_xy)
    mask = masker(crop, transform_points(to_crop, face.landmarks_xy), contour)
    target, to_target = crop_square(image_uint8, face.bbox_xyxy, target_expand, resolution)
    return Cut(
        crop_uint8=crop,
        mask_uint8=np.where(mask >= 0.5, 255, 0).astype(np.uint8),
        target_uint8=target,
        aligned_uint8=align_face(image_uint8, face.landmarks_xy, aligned_size),
        target_landmarks_xy=transform_points(to_target, face.landmarks_xy),
    )


def paint_outside(
    crop_uint8: np.ndarray, mask_uint8: np.ndarray, fill_rgb: tuple[int, int, int]
) -> np.ndarray:
    """Returns the crop with everything but the face in one colour: x_m."""
    return np.where(mask_uint8[..., None] >= 128, crop_uint8, np.array(fill_rgb, np.uint8))


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


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    """Loads the pixels and turns them as EXIF says; an EXIF block that cannot be read is ignored."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - broken metadata is no reason to lose a whole picture
        return image


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales 16-bit (0..65535) and floating (0..1) grey values to 0..255."""
    if values.dtype.kind == "f":
        scale = 255.0 if values.size and np.nanmax(values) <= 1 else 1.0
        return np.clip(np.nan_to_num(values) * scale, 0, 255).astype(np.uint8)
    if values.dtype == np.uint8 or values.max(initial=0) <= 255 and values.dtype != np.uint16:
        return values.astype(np.uint8)
    return (np.clip(values, 0, 65535) // 257).astype(np.uint8)
