"""How usable a detected face is: sharpness of the aligned crop, yaw and roll from five landmarks.

Rough measures for filters, not judgements: a pose from five points is good to about ten degrees.
"""

import cv2
import numpy as np

# A mean head in units of its own, seen from the front exactly as ArcFace's template: x to the right, y down,
# z towards the viewer. Only the nose stands out of the plane of eyes and mouth corners.
HEAD_XYZ = np.array(
    [[-32.0, 0.0, 0.0], [32.0, 0.0, 0.0], [0.0, 36.6, 25.0], [-26.5, 74.0, 0.0], [26.5, 74.0, 0.0]]
)


def sharpness(aligned_uint8: np.ndarray) -> float:
    """Returns the variance of the Laplacian of the grey face (S, S, 3), values 0..255: low is blurred."""
    grey = cv2.cvtColor(aligned_uint8, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def head_pose(landmarks_xy: np.ndarray) -> tuple[float, float]:
    """Returns (yaw, roll) in degrees, by the weak-perspective camera that fits a mean head best.

    Args:
        landmarks_xy: (5, 2) pixels, insightface order.

    Returns:
        Yaw: positive if the nose points to the viewer's right. Roll: positive if the head leans clockwise as
        the viewer sees it. (0, 0) for landmarks on one point.
    """
    head = HEAD_XYZ - HEAD_XYZ.mean(0)
    points = np.asarray(landmarks_xy, np.float64) - np.mean(landmarks_xy, axis=0, dtype=np.float64)
    camera = (np.linalg.pinv(head) @ points).T  # (2, 3): scaled first two rows of the rotation
    left, scales, right = np.linalg.svd(camera, full_matrices=False)
    if scales[0] < 1e-9:
        return 0.0, 0.0
    across, down = left @ right  # the nearest orthonormal rows
    towards = np.cross(across, down)
    yaw = np.degrees(np.arcsin(np.clip(-towards[0], -1, 1)))
    roll = np.degrees(np.arctan2(down[0], across[0]))
    return float(yaw), float(roll)
