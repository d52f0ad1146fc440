"""Crop and landmarks -> face mask in [0, 1].

Not inside: what to do with the pixels outside (`prepare` paints them in the image encoder's mean colour).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from components.face.config import FaceConfig

Masker = Callable[..., np.ndarray]

# The ellipse in units of the face itself: distance between the eyes, and from the eyes' middle to the
# mouth's. Measured on adult faces: the hairline is about 0.95, the chin 1.65 eye-mouth distances below the
# eyes' middle.
TOP, BOTTOM, HALF_WIDTH = -0.95, 1.65, 1.12
HAIR_TOP, HAIR_HALF_WIDTH = -1.7, 1.55
TURN_SHIFT = 0.7
EYES_PER_MOUTH = 0.865  # eye distance / eye-mouth distance on ArcFace's template: a frontal face
HULL_GROWTH = 2.1  # the hull of eyes and mouth covers about half a face


def load_masker(config: FaceConfig, device: str = "cpu") -> Masker:
    """Returns `(crop_uint8, landmarks_xy, contour_xy=None) -> mask`.

    crop_uint8 is (H, W, 3) RGB, landmarks_xy (5, 2) and contour_xy (K, 2) in pixels of the crop, the
    mask float32 (H, W) in [0, 1]. "landmarks" takes the contour where there is one, else the five points.

    Raises:
        ValueError: The SegFormer parser is not set or cannot be loaded.
    """
    if config.mask == "segformer":
        return SegFormerMasker(config, device)
    if config.mask == "landmarks":
        return _hull_masker
    return partial(_ellipse_masker, hair=config.mask_hair)


def ellipse_mask(shape_hw: tuple[int, int], landmarks_xy: np.ndarray, *, hair: bool = False) -> np.ndarray:
    """Returns an ellipse that rolls with the face, from hairline to chin (with `hair`: over the hair too).

    Args:
        shape_hw: Height and width of the crop.
        landmarks_xy: (5, 2) insightface order, crop pixels.
        hair: Whether to reach over the hair.
    """
    points = np.asarray(landmarks_xy, np.float64)
    eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
    down = mouth - eyes
    height = max(float(np.hypot(*down)), 1e-6)
    across = points[1] - points[0]
    # A turned face brings the eyes together, a nodding one eyes and mouth: the larger of the two tells the
    # size.
    unit = max(height, float(np.hypot(*across)) / EYES_PER_MOUTH)
    top, half_width = (HAIR_TOP, HAIR_HALF_WIDTH) if hair else (TOP, HALF_WIDTH)
    down_unit = down / height
    side_unit = np.array([down_unit[1], -down_unit[0]])
    # The nose of a turned face points to where the face ends soon: the middle of what is seen lies on the
    # other side.
    turn = float((points[2] - eyes) @ side_unit)
    centre = eyes + down_unit * unit * (top + BOTTOM) / 2 - side_unit * turn * TURN_SHIFT
    radius_down, radius_across = unit * (BOTTOM - top) / 2, unit * EYES_PER_MOUTH * half_width
    y, x = np.mgrid[: shape_hw[0], : shape_hw[1]]
    dx, dy = x - centre[0], y - centre[1]
    along = (dx * down_unit[0] + dy * down_unit[1]) / radius_down
    beside = (dx * side_unit[0] + dy * side_unit[1]) / radius_across
    return (along**2 + beside**2 <= 1).astype(np.float32)


def hull_mask(shape_hw: tuple[int, int], landmarks_xy: np.ndarray) -> np.ndarray:
    """Returns the convex hull of the landmarks; that of five is grown about its middle to face size."""
    points = np.asarray(landmarks_xy, np.float32)
    if len(points) == 5:
        middle = points.mean(0)
        points = middle + (points - middle) * HULL_GROWTH
    mask = np.zeros(shape_hw, np.uint8)
    hull = cv2.convexHull(np.round(points).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1)
    return mask.astype(np.float32)


def _ellipse_masker(
    crop_uint8: np.ndarray, landmarks_xy: np.ndarray, contour_xy: np.ndarray | None = None, *, hair: bool
) -> np.ndarray:
    return ellipse_mask(crop_uint8.shape[:2], landmarks_xy, hair=hair)


def _hull_masker(
    crop_uint8: np.ndarray, landmarks_xy: np.ndarray, contour_xy: np.ndarray | None = None
) -> np.ndarray:
    return hull_mask(crop_uint8.shape[:2], landmarks_xy if contour_xy is None else contour_xy)


class SegFormerMasker:
    """SegFormer face parsing: the pixels whose class counts as face."""

    SIDE = 512
    MEAN = np.array([0.485, 0.456, 0.406], np.float32)
    STD = np.array([0.229, 0.224, 0.225], np.float32)

    def __init__(self, config: FaceConfig, device: str = "cpu") -> None:
        if config.segformer is None:
            raise ValueError('mask "segformer" needs face.segformer: the folder or hub id of a face parser')
        if config.segformer.count("/") != 1 and not Path(config.segformer).is_dir():
            raise ValueError(f"no SegFormer face parser at {config.segformer!r}: no folder, and no hub id")
        from transformers import SegformerForSemanticSegmentation

        try:
            model = SegformerForSemanticSegmentation.from_pretrained(config.segformer, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"no SegFormer face parser at {config.segformer!r}: {error}") from error
        classes = config.segformer_face_classes
        self.classes = (*classes, config.segformer_hair_class) if config.mask_hair else classes
        known = len(model.config.id2label or {})
        if max(self.classes) >= known:
            raise ValueError(
                f"face classes {self.classes} go beyond the {known} classes of {config.segformer!r}"
            )
        self._device = device
        self._model = model.eval().to(device)

    def __call__(
        self,
        crop_uint8: np.ndarray,
        landmarks_xy: np.ndarray | None = None,
        contour_xy: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns float32 (H, W) in {0, 1}; the landmarks are not needed."""
        import torch

        resized = cv2.resize(crop_uint8, (self.SIDE, self.SIDE), interpolation=cv2.INTER_LINEAR)
        pixels = (resized.astype(np.float32) / 255 - self.MEAN) / self.STD
        batch = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).to(self._device)
        with torch.inference_mode():
            logits = self._model(pixel_values=batch).logits
            logits = torch.nn.functional.interpolate(logits, crop_uint8.shape[:2], mode="bilinear")
        labels = logits.argmax(1)[0].cpu().numpy()
        return np.isin(labels, self.classes).astype(np.float32)
