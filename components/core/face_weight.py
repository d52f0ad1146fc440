"""What each place of a picture, or of its latents, counts in a loss, by where its face is."""

import numpy as np
from numpy.typing import NDArray


def face_weight(
    landmarks_xy: NDArray[np.floating], size: int, face: float, mouth: float = 0.0
) -> NDArray[np.float32]:
    """Weighs the face, and its mouth once more, against the places around.

    Without it a smile or an eye, a few latents of hundreds, costs so little that it is hardly learned.

    Args:
        landmarks_xy: (B, 5, 2) eyes, nose, mouth corners, in places of the result.
        size: Side of the result.
        face: How much more the middle of the face counts than a place far from it.
        mouth: The same of the mouth, added to the face's.

    Returns:
        (B, 1, size, size) of mean 1: heaviest in the middle of the face, falling around it.
    """
    points = landmarks_xy.astype(np.float32)
    corners = points[:, 3:]
    height = np.linalg.norm(corners.mean(1) - points[:, :2].mean(1), axis=1)
    weight = 1 + face * _bell(points.mean(1), height * 1.1 + 1, size)
    if mouth:
        width = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
        weight = weight + mouth * _bell(corners.mean(1), width / 2 + 0.5, size)
    return (weight / weight.mean(axis=(1, 2), keepdims=True))[:, None]


def _bell(centre_xy: NDArray[np.float32], radius: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(B, size, size): 1 at the centres (B, 2), exp(-1/2) at the radii (B,)."""
    steps = np.arange(size, dtype=np.float32)
    across = (steps[None, None, :] - centre_xy[:, 0, None, None]) / radius[:, None, None]
    down = (steps[None, :, None] - centre_xy[:, 1, None, None]) / radius[:, None, None]
    return np.exp(-0.5 * (across**2 + down**2))
