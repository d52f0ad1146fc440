"""Aligns faces inside a batch of images the way ArcFace networks expect them, with gradients to the pixels.

The transform is a similarity (rotation, scale, shift), fitted without gradient to five landmarks; the
sampling is bilinear, black beyond the edge, as in insightface's `norm_crop` (cv2.warpAffine). Pixel (x, y)
has its centre at the integer coordinate, so landmarks of OpenCV and insightface are used as they are.

Shapes: B batch, H and W of the images, S size of the aligned face.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# insightface's template for 112 x 112: eyes (as seen: left, right), nose, mouth corners (left, right)
ARCFACE_TEMPLATE_XY = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
TEMPLATE_SIZE = 112


def similarity_to_template(landmarks_xy: Tensor, size: int = TEMPLATE_SIZE) -> Tensor:
    """Fits image -> aligned-face similarity transforms by least squares.

    Args:
        landmarks_xy: (B, 5, 2) pixels, insightface order.
        size: S, side of the aligned face in pixels.

    Returns:
        (B, 2, 3) matrices from homogeneous image points to aligned points (Umeyama's solution in the plane).

    Raises:
        ValueError: A face whose five landmarks fall on one point.
    """
    source = landmarks_xy.detach().double()
    target = torch.tensor(ARCFACE_TEMPLATE_XY, dtype=torch.float64, device=source.device) * (
        size / TEMPLATE_SIZE
    )
    source_mean, target_mean = source.mean(dim=1, keepdim=True), target.mean(dim=0)
    s, t = source - source_mean, target - target_mean
    spread = s.square().sum(dim=(1, 2))
    if bool((spread <= 1e-12).any()):
        raise ValueError("cannot align a face whose five landmarks are one point")
    cosine = (s * t).sum(dim=(1, 2)) / spread
    sine = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(dim=1) / spread
    linear = torch.stack(
        [torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], dim=1
    )  # (B, 2, 2)
    shift = target_mean - (linear @ source_mean.transpose(1, 2)).squeeze(-1)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def aligned_centres(landmarks_xy: Tensor) -> Tensor:
    """Returns where the middle of each aligned face lies in its image: (B, 2) pixels, float64, no gradient.

    Args:
        landmarks_xy: (B, 5, 2) pixels, insightface order.
    """
    forward = similarity_to_template(landmarks_xy)
    middle = torch.full((2,), (TEMPLATE_SIZE - 1) / 2, dtype=torch.float64, device=forward.device)
    return torch.linalg.solve(forward[:, :, :2], middle - forward[:, :, 2])


def warp_faces(images_m11: Tensor, landmarks_xy: Tensor, size: int = TEMPLATE_SIZE) -> Tensor:
    """Cuts aligned faces out of images, differentiably in the images.

    Args:
        images_m11: (B, C, H, W) in [-1, 1].
        landmarks_xy: (B, 5, 2) in pixels of these images; no gradient flows to them.
        size: S, side of the aligned face.

    Returns:
        (B, C, S, S) in [-1, 1]; -1 (black) beyond the image's edge.

    Raises:
        ValueError: Shapes that do not fit, or landmarks that fall on one point.
    """
    batch, _, height, width = images_m11.shape
    if landmarks_xy.shape != (batch, 5, 2):
        raise ValueError(
            f"landmarks must be ({batch}, 5, 2) for {batch} images, found {tuple(landmarks_xy.shape)}"
        )
    forward = similarity_to_template(landmarks_xy.to(images_m11.device), size)
    inverse = torch.linalg.inv(forward[:, :, :2])  # (B, 2, 2)
    steps = torch.arange(size, dtype=torch.float64, device=images_m11.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    aligned = torch.stack([x, y], dim=-1).reshape(1, -1, 2) - forward[:, None, :, 2]  # (B, S*S, 2)
    points = aligned @ inverse.transpose(1, 2)
    scale = torch.tensor([width - 1, height - 1], dtype=torch.float64, device=points.device).clamp_min(1)
    # half precision cannot tell neighbouring pixels of a large image apart: sample in float32 at least
    pixels = images_m11.to(torch.promote_types(images_m11.dtype, torch.float32))
    grid = (2 * points / scale - 1).reshape(batch, size, size, 2).to(pixels.dtype)
    # zeros padding of (x + 1) is black, where padding of x itself would be grey
    warped = F.grid_sample(pixels + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=True) - 1
    return warped.to(images_m11.dtype)
