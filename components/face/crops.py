"""Photo and face -> identity crop x_m (PhotoVerse Sec. 3.1): what the image encoder sees.

One code for preparation and inference: a card is made from the very crop that training knew.
"""

import numpy as np

from components.face.align import crop_square, transform_points
from components.face.detect import Face
from components.face.mask import Masker


def identity_crop(
    image_uint8: np.ndarray,
    face: Face,
    masker: Masker,
    *,
    size: int,
    fill_rgb: tuple[int, int, int],
    expand: float = 1.3,
) -> np.ndarray:
    """Cuts the square around a face, and paints over what is not face.

    Args:
        image_uint8: (H, W, 3) RGB photo.
        face: As the detector found it in that photo.
        masker: As `load_masker` gives it; pixels with a mask below 0.5 are painted over.
        size: Side of the crop in pixels: the image encoder's own.
        fill_rgb: Colour of the paint: the encoder's mean.
        expand: Factor on the face box (PhotoVerse Sec. 3.1: 1.3).

    Returns:
        x_m: uint8 (size, size, 3) RGB.
    """
    return paint_outside(*masked_crop(image_uint8, face, masker, size=size, expand=expand), fill_rgb)


def masked_crop(
    image_uint8: np.ndarray, face: Face, masker: Masker, *, size: int, expand: float = 1.3
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the square around a face, uint8 (size, size, 3), and its mask, uint8 (size, size), 0 or 255."""
    crop, matrix = crop_square(image_uint8, face.bbox_xyxy, expand, size)
    contour = None if face.contour_xy is None else transform_points(matrix, face.contour_xy)
    mask = masker(crop, transform_points(matrix, face.landmarks_xy), contour)
    return crop, np.where(mask >= 0.5, 255, 0).astype(np.uint8)


def paint_outside(
    crop_uint8: np.ndarray, mask_uint8: np.ndarray, fill_rgb: tuple[int, int, int]
) -> np.ndarray:
    """Returns the crop with everything in one colour where the mask is 0."""
    return np.where(mask_uint8[..., None] >= 128, crop_uint8, np.array(fill_rgb, np.uint8))
