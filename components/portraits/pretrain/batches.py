"""Pictures as the parts see them: frames of the base's size, aligned faces, identity crops, words.

All are pure functions of the cached people and a random generator. Pictures are RGB uint8 until `to_m11`.
"""

import cv2
import numpy as np
import torch

from components.portraits.face_nets import FACE_SIZE
from components.portraits.pretrain.people import People

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
"""Eyes, nose, mouth corners in a 112 x 112 aligned face, pixels. Source: insightface `face_align.py`."""
WIDEST, MIDDLE, CLOSEST = 0.76, 0.7, 0.65
"""A frame shows this share of the drawn picture's side: the face box of a detector times 1.25 to 1.45.

At 64 px a wider frame leaves an eye two pixels, too little for a small UNet to draw it.
"""

DETECTOR_ERROR = 0.018
"""Largest deviation of a landmark, as a share of the side: CenterFace errs by 1.1 of 64 in x and in y."""
SPOTS = 24.0
"""Largest deviation of spots, of 255."""
FACE_WEIGHT = 6.0
"""How much more the middle of a face counts in a loss: flat backgrounds are easy, and eyes are small."""


def to_m11(pictures: list[np.ndarray]) -> torch.Tensor:
    """(H, W, 3) uint8 pictures as one (B, 3, H, W) float32 tensor in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float().div_(127.5).sub_(1)


def from_m11(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] as (B, H, W, 3) uint8."""
    clipped = images.detach().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return clipped.permute(0, 2, 3, 1).contiguous().numpy()


def frame(
    people: People, index: int, size: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """A square cut of a drawn picture at the base's size, and the landmarks in it.

    Args:
        people: The drawn people.
        index: Which picture.
        size: Side of the result, pixels.
        rng: Draws how close and where; None takes the middle of what it could draw.

    Returns:
        (size, size, 3) uint8 and (5, 2) float32 pixels of the result.
    """
    picture, landmarks = people.pictures[index], people.landmarks[index]
    full = picture.shape[0]
    share, shift = (
        (MIDDLE, np.zeros(2)) if rng is None else (rng.uniform(CLOSEST, WIDEST), rng.normal(0, 0.02, 2))
    )
    side = round(full * share)
    centre = landmarks[2] + full * (shift + (0, -0.065))  # a detector's box has its middle above the nose
    left, top = np.clip(np.round(centre - side / 2), 0, full - side).astype(int)
    cut = picture[top : top + side, left : left + side]
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA), (
        (landmarks - (left, top) + 0.5) * (size / side) - 0.5
    ).astype(np.float32)


def similarity(points_xy: np.ndarray, template_xy: np.ndarray) -> np.ndarray:
    """The similarity that best maps points to the template: (2, 3) float32. Least squares, in closed form."""
    x, y = points_xy.astype(np.float64) @ [1, 1j], template_xy.astype(np.float64) @ [1, 1j]
    xc, yc = x - x.mean(), y - y.mean()
    turn = (np.conj(xc) @ yc) / (np.conj(xc) @ xc)
    shift = y.mean() - turn * x.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32)


def aligned_face(picture: np.ndarray, landmarks_xy: np.ndarray) -> np.ndarray:
    """The face on insightface's template: (112, 112, 3) uint8."""
    return cv2.warpAffine(picture, similarity(landmarks_xy, ARCFACE_TEMPLATE), (FACE_SIZE, FACE_SIZE))


def rough_face(people: People, index: int, rng: np.random.Generator) -> np.ndarray:
    """An aligned face as careless cameras, detectors, painters give it; never mirrored: moles have a side."""
    picture, landmarks = people.pictures[index], people.landmarks[index].copy()
    if rng.random() < 0.6:  # as small as a picture of the base, or smaller
        side = int(rng.integers(picture.shape[0] * 3 // 8, picture.shape[0]))
        landmarks = (landmarks + 0.5) * (side / picture.shape[0]) - 0.5
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    landmarks = landmarks + rng.normal(0, DETECTOR_ERROR * picture.shape[0], landmarks.shape) * rng.random()
    face = aligned_face(picture, landmarks)
    if rng.random() < 0.3:
        face = cv2.GaussianBlur(face, (0, 0), rng.uniform(0.5, 2.0))
    return spotted(recolour(face, rng), rng)


def spotted(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the pictures with spots of any size: a generated picture errs by patches, and is who it is.

    To a net that had seen no spots noise of a fifth of the latents' deviation, which an eye hardly sees, made
    .58 of a person's .77.
    """
    if rng.random() < 0.5:
        return picture
    side = int(rng.integers(8, picture.shape[0] // 2 + 1))
    small = rng.normal(0, rng.uniform(0, SPOTS), (side, side, 3)).astype(np.float32)
    spots = cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + spots, 0, 255).astype(np.uint8)


def recolour(picture: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Another exposure, white balance and contrast."""
    gain = rng.uniform(1 - 0.15 * strength, 1 + 0.15 * strength) * (1 + rng.normal(0, 0.03 * strength, 3))
    shifted = picture.astype(np.float32) * gain.astype(np.float32) + np.float32(rng.normal(0, 6 * strength))
    return np.clip(shifted, 0, 255).astype(np.uint8)


def identity_crop(people: People, index: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """The face alone, as PhotoVerse's image encoder sees it: cut around it, the rest in the mean colour.

    The mask is the exact one, or a rolled ellipse, or none, so that features do not depend on how faces are
    masked.
    """
    mask = people.mask(index)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return frame(people, index, size, rng)[0]
    centre = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2
    height = rows[-1] - rows[0] + 1
    side = height * rng.uniform(1.15, 1.5)
    centre = centre + rng.normal(0, 0.03, 2) * height
    matrix = np.array(
        [
            [size / side, 0, size / 2 - centre[0] * size / side],
            [0, size / side, size / 2 - centre[1] * size / side],
        ]
    )
    cut = cv2.warpAffine(people.pictures[index], matrix, (size, size), borderMode=cv2.BORDER_REFLECT)
    kind = rng.random()
    if kind < 0.4:
        cover = cv2.warpAffine(mask.astype(np.float32), matrix, (size, size))
    elif kind < 0.8:
        cover = _ellipse(
            matrix, centre, height * rng.uniform(0.38, 0.48), height * rng.uniform(0.5, 0.6), size
        )
    else:
        cover = np.ones((size, size), np.float32)
    return (cut * cover[..., None] + 127.5 * (1 - cover[..., None])).astype(np.uint8)


def _ellipse(
    matrix: np.ndarray, centre: np.ndarray, half_width: float, half_height: float, size: int
) -> np.ndarray:
    middle = matrix[:, :2] @ centre + matrix[:, 2]
    y, x = np.mgrid[:size, :size]
    scale = matrix[0, 0]
    radius = np.hypot((x - middle[0]) / (half_width * scale), (y - middle[1]) / (half_height * scale))
    return np.clip((1 - radius) * 8 + 0.5, 0, 1).astype(np.float32)


def words(people: People, index: int, rng: np.random.Generator) -> str:
    """What could be said of a picture: the caption, alone or with some finer details, or details alone."""
    caption, details = people.captions[index], people.details[index]
    kind = rng.random()
    if kind < 0.5:
        return caption
    some = [details[i] for i in rng.permutation(len(details))[: int(rng.integers(1, 4))]]
    if kind < 0.8:
        return ", ".join([caption, *some])
    if kind < 0.95:
        background = people.attributes[index]["background"]
        place = f", on a {background} background" if rng.random() < 0.7 else ""
        return ", ".join(["a photo of a person", *some]) + place
    return ("a photo of a person", "a portrait", "a photo of a face")[int(rng.integers(3))]
