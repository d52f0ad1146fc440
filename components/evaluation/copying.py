"""Is it a copy of the very photo? Pixels, identity, pose and expression, against other photos of a person."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.core import CopyingFigures
from components.evaluation import metrics
from components.evaluation.evidence import Evidence
from components.evaluation.judges import Sighting
from components.evaluation.scores import Vectors


def copying_figures(
    evidence: Evidence, identity: Vectors, made: Sequence[Sighting], real: Sequence[Sighting]
) -> CopyingFigures:
    """Returns how near pictures come to the very photo, and how much they vary.

    Args:
        evidence: All pictures.
        identity: Vectors of the identity judge.
        made: Sightings of all generated pictures, reference by reference.
        real: Sightings of all real photos.
    """
    people_G = np.array([photo.person for photo in evidence.photos])
    people_R = people_G[evidence.reference_R]
    mates_RG = (people_R[:, None] == people_G[None]) & (
        evidence.reference_R[:, None] != np.arange(len(people_G))[None]
    )
    by_reference = {
        **_pixels(evidence, mates_RG),
        **_identity(identity, mates_RG),
        **_shapes(evidence, made, real, mates_RG),
    }
    base_BD = metrics.picture_vectors(np.stack(evidence.base))
    base_diversity = float(metrics.diversity(base_BD[None])[0])
    means = {name: _mean_over_people(values, people_R) for name, values in by_reference.items()}
    means["base_diversity"] = None if np.isnan(base_diversity) else base_diversity
    return CopyingFigures.parse(means, source="copying")


def _mean_over_people(values_R: NDArray, people_R: NDArray) -> float | None:
    _, values_P = metrics.mean_by_person(values_R, people_R)
    return float(values_P.mean()) if len(values_P) else None


def _pixels(evidence: Evidence, mates_RG: NDArray) -> dict[str, NDArray]:
    photos_GD = metrics.picture_vectors(np.stack([photo.target_uint8 for photo in evidence.photos]))
    made_RKD = np.stack([metrics.picture_vectors(np.stack(row)) for row in evidence.generated])
    references_RD = photos_GD[evidence.reference_R]
    return {
        "generated": metrics.own_similarity(made_RKD, references_RD).mean(axis=1),
        "other_photo": _mean_where(references_RD @ photos_GD.T, mates_RG),
        "diversity": metrics.diversity(made_RKD),
    }


def _identity(vectors: Vectors, mates_RG: NDArray) -> dict[str, NDArray]:
    """By the identity judge: pictures with the photo given, and with the person's other photos."""
    references_RD = vectors.photos_GD[vectors.reference_R]
    with_all_RG = np.einsum("rkd,gd->rg", vectors.generated_RKD, vectors.photos_GD)
    return {
        "very_photo": metrics.own_similarity(vectors.generated_RKD, references_RD).mean(axis=1),
        "other_photos": _mean_where(with_all_RG / vectors.generated_RKD.shape[1], mates_RG),
    }


def _shapes(
    evidence: Evidence, made: Sequence[Sighting], real: Sequence[Sighting], mates_RG: NDArray
) -> dict[str, NDArray]:
    """Change of pose and expression from the photo given; pictures without a face tell nothing."""
    real_shapes = metrics.face_shape(np.stack([np.asarray(sighting.landmarks_xy) for sighting in real]))
    pictures = len(evidence.generated[0])
    changes: dict[str, NDArray] = {}
    for number, kind in enumerate(("pose_change", "expression_change")):
        shapes_GD = real_shapes[number]
        made_R, real_R = [], []
        for r, index in enumerate(evidence.reference_R):
            seen = [s.landmarks_xy for s in made[r * pictures : (r + 1) * pictures]]
            found = [landmarks for landmarks in seen if landmarks is not None]
            own = metrics.face_shape(np.stack(found))[number] if found else np.empty((0, shapes_GD.shape[1]))
            made_R.append(_mean(metrics.shape_change(own, shapes_GD[index])))
            real_R.append(_mean(metrics.shape_change(shapes_GD[mates_RG[r]], shapes_GD[index])))
        changes |= {kind: np.array(made_R), f"{kind}_real": np.array(real_R)}
    return changes


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _mean_where(values_RG: NDArray, chosen_RG: NDArray) -> NDArray:
    """Returns (R,): mean of the chosen of each row, NaN where none is."""
    counts = chosen_RG.sum(axis=1)
    sums = (values_RG * chosen_RG).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
