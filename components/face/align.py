"""Boxes and landmarks -> crops, each with the transform that made it.

Pixel convention: the centre of the first pixel is (0, 0), as in OpenCV. Images are uint8 RGB (H, W, 3).
"""

import cv2
import numpy as np

# Where ArcFace expects the five landmarks in a 112 px crop (insightface's template).
ARCFACE_TEMPLATE_XY = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)


def crop_square(
    image_uint8: np.ndarray, bbox_xyxy: np.ndarray, expand: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the square around a box, `expand` times its longer side wide, and resizes it.

    Beyond the edge of the photo its mirror image is shown. Shrinking averages areas (no aliasing), enlarging
    is cubic.

    Args:
        image_uint8: (H, W, 3).
        bbox_xyxy: (4,) pixels.
        expand: Factor on the box, 1.3 for the identity crop and 3 for the target (PhotoVerse Sec. 3,
            preprocessing).
        size: Side of the crop in pixels.

    Returns:
        The crop, uint8 (size, size, 3), and the matrix float32 (2, 3) from original to crop pixels.

    Raises:
        ValueError: The box is empty.
    """
    x0, y0, x1, y1 = (float(v) for v in bbox_xyxy)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"the box {x0, y0, x1, y1} is empty; expected x0 < x1 and y0 < y1")
    side = max(x1 - x0, y1 - y0) * expand
    small, factor = _shrink_whole(image_uint8, int(side // (4 * size)))
    # The square snaps to whole pixels (edges at half-integers), and the matrix says where it really is.
    pixels = max(1, round(side / factor))
    left = round(((x0 + x1) / 2 + 0.5) / factor - pixels / 2)
    top = round(((y0 + y1) / 2 + 0.5) / factor - pixels / 2)
    square = _cut_mirrored(small, left, top, pixels)
    method = cv2.INTER_AREA if pixels > size else cv2.INTER_CUBIC
    crop = cv2.resize(square, (size, size), interpolation=method)
    scale = size / pixels
    shift_x, shift_y = ((0.5 / factor - at) * scale - 0.5 for at in (left, top))
    matrix = np.array([[scale / factor, 0, shift_x], [0, scale / factor, shift_y]], np.float32)
    return crop, matrix


def transform_points(matrix: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """Applies a (2, 3) matrix to (N, 2) points; float32."""
    return (points_xy @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def align_face(image_uint8: np.ndarray, landmarks_xy: np.ndarray, size: int = 112) -> np.ndarray:
    """Returns the face turned and scaled onto ArcFace's template; black beyond the edge of the photo.

    The same as insightface's `norm_crop`: (size, size, 3), for a size that 112 divides.
    """
    matrix = similarity_transform(landmarks_xy, ARCFACE_TEMPLATE_XY * (size / 112))
    return cv2.warpAffine(image_uint8, matrix, (size, size), borderValue=0)


def similarity_transform(from_xy: np.ndarray, to_xy: np.ndarray) -> np.ndarray:
    """Returns the (2, 3) rotation, scale and shift of least squared error between points (Umeyama 1991).

    Raises:
        ValueError: The points coincide.
    """
    source, target = np.asarray(from_xy, np.float64), np.asarray(to_xy, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_c, target_c = source - source_mean, target - target_mean
    variance = (source_c**2).sum()
    if variance < 1e-8:
        raise ValueError("the landmarks coincide: no similarity transform maps them to a face")
    # In two dimensions the best rotation is one complex number: sum(conj(s) t) / sum |s|^2.
    a = (source_c * target_c).sum() / variance
    b = (source_c[:, 0] * target_c[:, 1] - source_c[:, 1] * target_c[:, 0]).sum() / variance
    linear = np.array([[a, -b], [b, a]])
    return np.hstack([linear, (target_mean - linear @ source_mean)[:, None]])


def _shrink_whole(image: np.ndarray, factor: int) -> tuple[np.ndarray, int]:
    """Averages blocks of factor x factor pixels, so that the crop of a huge photo never needs huge memory."""
    height, width = image.shape[:2]
    factor = min(factor, height, width)
    if factor < 2:
        return image, 1
    rows, columns = height // factor, width // factor
    whole = image[: rows * factor, : columns * factor]
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), factor


def _cut_mirrored(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if (x0, y0, x1, y1) == (left, top, left + side, top + side):
        return image[top : top + side, left : left + side]
    rows = _mirrored(np.arange(top, top + side), height)
    columns = _mirrored(np.arange(left, left + side), width)
    return image[rows[:, None], columns[None, :]]


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Folds indices into [0, length) like a mirror at the edge pixels: 2 1 | 0 1 2 ... ."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    return np.minimum(folded, period - folded)
