"""What similarities and pictures say, as pure functions of arrays; no model, no file.

Legend: R references, K pictures a reference, G gallery, N pictures, P people, D width of an embedding.
Embeddings have unit norm; **the zero vector stands for a picture without a face**, so that its similarity to
anybody is 0 and it is never a hit: failures are counted, not dropped.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def unit(vectors_ND: Floats) -> Floats:
    """Scales the last axis to norm 1; zero vectors stay zero."""
    norms = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
    return np.divide(vectors_ND, norms, out=np.zeros_like(vectors_ND), where=norms > 0)


def own_similarity(pictures_RKD: Floats, references_RD: Floats) -> Floats:
    """Returns (R, K): cosine of each picture with the reference it was made from."""
    return np.einsum("rkd,rd->rk", pictures_RKD, references_RD)


def others_similarity(references_RD: Floats, people_R: NDArray) -> Floats:
    """Returns (R,): mean cosine of a reference with the references of all other people, the floor.

    Raises:
        ValueError: There is only one person.
    """
    other = people_R[:, None] != people_R[None, :]
    if not other.any(axis=1).all():
        raise ValueError("the floor needs at least two people")
    cosines = references_RD @ references_RD.T
    return (cosines * other).sum(axis=1) / other.sum(axis=1)


def same_similarity(
    references_RD: Floats, photos_GD: Floats, people_R: NDArray, people_G: NDArray, same_photo_RG: NDArray
) -> Floats:
    """Returns (R,): mean cosine of a reference with other photos of the same person, NaN where there is none.

    Args:
        references_RD: References.
        photos_GD: All photos.
        people_R: Person of each reference.
        people_G: Person of each photo.
        same_photo_RG: True where reference and photo are the very same photo.
    """
    mates = (people_R[:, None] == people_G[None, :]) & ~same_photo_RG
    counts = mates.sum(axis=1)
    sums = ((references_RD @ photos_GD.T) * mates).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def retrieval_hits(pictures_RKD: Floats, gallery_GD: Floats, people_R: NDArray, people_G: NDArray) -> Floats:
    """Returns (R, K) of 0/1: the nearest of the gallery is the picture's own person.

    A tie between the own person and another, and so a picture without a face, is a miss.
    """
    cosines_RKG = np.einsum("rkd,gd->rkg", pictures_RKD, gallery_GD)
    own_RG = people_R[:, None] == people_G[None, :]
    best_own = np.where(own_RG[:, None, :], cosines_RKG, -np.inf).max(axis=-1)
    best_other = np.where(own_RG[:, None, :], -np.inf, cosines_RKG).max(axis=-1)
    return (best_own > best_other).astype(np.float64)


def mean_by_person(values_R: Floats, people_R: NDArray) -> tuple[NDArray, Floats]:
    """Returns the sorted people (P,) and the mean of each; NaN values are left out, all-NaN people too."""
    known = ~np.isnan(values_R)
    people, index = np.unique(people_R[known], return_inverse=True)
    sums = np.bincount(index, weights=values_R[known], minlength=len(people))
    return people, sums / np.bincount(index, minlength=len(people))


MANY = 8
"""People from which on a mean to which nearly all of them agree gets a narrow interval."""
SPREAD, TINY = 0.1, np.finfo(np.float64).tiny


def bootstrap_interval(
    values_P: Floats,
    *,
    seed: int,
    samples: int = 2000,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> tuple[float, float]:
    """Returns an interval for the mean over people, by the studentised bootstrap (bootstrap-t).

    The percentile bootstrap is too narrow for the 5-40 people of a group; this one keeps its promise there,
    at the price of wide intervals for very few people. Resample people, never their pictures: those are not
    independent.

    Args:
        values_P: One value a person.
        seed: Of the resampling.
        samples: Number of resamples.
        confidence: Coverage aimed at.
        bounds: What the mean can be at all; the answer for fewer than two people.
    """
    values = np.asarray(values_P, dtype=np.float64)
    if len(values) < 2:
        return bounds
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    if error <= 1e-12:
        return float(mean), float(mean)
    draws = values[np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))]
    gaps, errors = draws.mean(axis=1) - mean, draws.std(axis=1, ddof=1) / np.sqrt(len(values))
    # A resample with hardly any spread, because it missed the one person who is unlike the others: of few
    # people it says nothing; of many it borrows the spread of all, or the interval would stretch without end.
    least, borrowed = (SPREAD * error, error) if len(values) >= MANY else (1e-12 * error, TINY)
    with np.errstate(over="ignore"):
        t = gaps / np.where(errors > least, errors, borrowed)
    tail = (1 - confidence) / 2
    low_t, high_t = np.quantile(t, [tail, 1 - tail], method="nearest")
    low, high = mean - high_t * error, mean - low_t * error
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def largest_gap(by_group: dict[str, float]) -> float:
    """Returns the difference between the best and the worst group; 0 for fewer than two groups."""
    return max(by_group.values()) - min(by_group.values()) if len(by_group) > 1 else 0.0


def picture_vectors(pictures_uint8: NDArray, side: int = 16) -> Floats:
    """Returns (N, side*side*3) unit vectors of small, mean-free pictures, whose cosine is their correlation.

    Args:
        pictures_uint8: (N, H, W, 3); H and W are cut to a multiple of `side`, then averaged in blocks.
        side: Width and height that pictures are averaged down to.
    """
    n, height, width = pictures_uint8.shape[:3]
    rows, columns = height // side, width // side
    cut = pictures_uint8[:, : rows * side, : columns * side].astype(np.float64)
    small = cut.reshape(n, side, rows, side, columns, 3).mean(axis=(2, 4)).reshape(n, -1)
    return unit(small - small.mean(axis=1, keepdims=True))


def diversity(vectors_RKD: Floats) -> Floats:
    """Returns (R,): 1 minus the mean cosine over pairs of a reference's K pictures; 0 when all are the same.

    Pictures without content (zero vectors) count as unlike everything. K = 1 gives NaN.
    """
    k = vectors_RKD.shape[1]
    if k < 2:
        return np.full(len(vectors_RKD), np.nan)
    first, second = np.triu_indices(k, 1)
    return 1 - np.einsum("rpd,rpd->rp", vectors_RKD[:, first], vectors_RKD[:, second]).mean(axis=1)


def colour_histograms(crops_uint8: NDArray, weights_HW: Floats, bins: int) -> Floats:
    """Returns (N, bins**3): roots of weighted RGB histograms, so that cosine = Bhattacharyya coefficient.

    Each pixel is shared linearly between the neighbouring bins of each axis, so that a small change of light
    is a small change of the histogram.

    Args:
        crops_uint8: (N, H, W, 3) RGB.
        weights_HW: Weight of each pixel, not negative.
        bins: Bins an axis.
    """
    n = len(crops_uint8)
    position = crops_uint8.reshape(n, -1, 3).astype(np.float64) / 255 * (bins - 1)
    low = np.minimum(position.astype(int), bins - 2)
    part = position - low
    weights = weights_HW.reshape(-1) / weights_HW.sum()
    histograms = np.zeros((n, bins**3))
    for corner in np.ndindex(2, 2, 2):
        cell = low + np.array(corner)
        share = np.where(np.array(corner), part, 1 - part).prod(axis=-1) * weights
        index = (cell[..., 0] * bins + cell[..., 1]) * bins + cell[..., 2]
        rows = np.arange(n)[:, None].repeat(index.shape[1], axis=1)
        np.add.at(histograms, (rows, index), share)
    return unit(np.sqrt(histograms))


def face_shape(landmarks_N52: Floats) -> tuple[Floats, Floats]:
    """Returns pose (N, 3) and expression (N, 2) as five landmarks tell them, in units of the eyes' distance.

    Pose: where the nose lies to the side of the middle between the eyes (turning), how far below it
    (nodding), and the roll of the eyes in radians. Expression: the mouth's width, and how far below the eyes
    it is.

    Args:
        landmarks_N52: (N, 5, 2) left eye, right eye, nose, left and right corner of the mouth, in pixels.
    """
    points = np.asarray(landmarks_N52, dtype=np.float64)
    left, right, nose = points[:, 0], points[:, 1], points[:, 2]
    across = right - left
    scale = np.maximum(np.linalg.norm(across, axis=1), 1e-6)[:, None]
    along = across / scale
    down = np.stack([-along[:, 1], along[:, 0]], axis=1)

    def seen(point: Floats) -> Floats:
        offset = (point - (left + right) / 2) / scale
        return np.stack([(offset * along).sum(1), (offset * down).sum(1)], axis=1)

    roll = np.arctan2(across[:, 1], across[:, 0])
    mouth_left, mouth_right = seen(points[:, 3]), seen(points[:, 4])
    width = np.linalg.norm(mouth_right - mouth_left, axis=1)
    drop = (mouth_left[:, 1] + mouth_right[:, 1]) / 2
    return np.column_stack([seen(nose), roll]), np.column_stack([width, drop])


def shape_change(shapes_ND: Floats, reference_D: Floats) -> Floats:
    """Returns (N,): how far pose or expression are from the reference's, as root of the summed squares."""
    return np.linalg.norm(np.asarray(shapes_ND) - np.asarray(reference_D)[None], axis=-1)
