"""The panel: all judges look at all pictures, real and generated, at the same size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation import metrics
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.evaluation.judges import FaceFinder, Judge, Sighting
from components.evaluation.scores import JudgeFigures, Vectors, judge_figures


@dataclass(frozen=True)
class Evidence:
    """Everything the judges look at. Legend as in metrics.

    Attributes:
        photos: All real photos of the chosen people.
        reference_R: Index of each reference in `photos`.
        generated: R lists of K pictures, (H, W, 3) RGB.
        base: B pictures of the base model alone.
    """

    photos: Sequence[Photo]
    reference_R: NDArray[np.intp]
    generated: Sequence[Sequence[NDArray[np.uint8]]]
    base: Sequence[NDArray[np.uint8]]

    @property
    def references(self) -> list[Photo]:
        """The reference photos, (R,)."""
        return [self.photos[i] for i in self.reference_R]


@dataclass(frozen=True)
class Verdict:
    """What the judges found.

    Attributes:
        tables: One a judge, the identity judge first.
        similarity_RK: Each picture with its reference, by the identity judge.
        found_RK: Whether each picture holds a face.
        copying: Figures of copying and variety, see `copying_figures`.
        reference_fallbacks: Real photos whose face the detector missed.
        judge_marks: Identity of each judge, by its name.
    """

    tables: Sequence[JudgeFigures]
    similarity_RK: NDArray[np.float64]
    found_RK: NDArray[np.bool_]
    copying: dict[str, float | None]
    reference_fallbacks: int
    judge_marks: dict[str, str]


def judge(
    config: EvaluationConfig, evidence: Evidence, finder: FaceFinder, judges: Sequence[Judge]
) -> Verdict:
    """Lets each judge look at all pictures, real and generated, at the same size."""
    real = [finder(photo.target_uint8, photo.landmarks_xy) for photo in evidence.photos]
    made = [finder(picture) for row in evidence.generated for picture in row]
    base = [finder(picture) for picture in evidence.base]
    tables: list[JudgeFigures] = []
    similarities_RK: list[NDArray] = []
    for one in judges:
        vectors = vectors_of(one, evidence, made, base, real)
        references_RD = vectors.photos_GD[evidence.reference_R]
        similarities_RK.append(metrics.own_similarity(vectors.generated_RKD, references_RD))
        tables.append(
            judge_figures(
                one.name,
                vectors,
                evidence.photos,
                seed=config.seed,
                samples=config.bootstrap_samples,
                confidence=config.confidence,
            )
        )
    similarity = similarities_RK[0]
    return Verdict(
        tables=tables,
        similarity_RK=similarity,
        found_RK=np.array([s.landmarks_xy is not None for s in made]).reshape(similarity.shape),
        copying=copying_figures(evidence),
        reference_fallbacks=sum(not sighting.detected for sighting in real),
        judge_marks={one.name: one.mark for one in judges},
    )


def vectors_of(
    judge: Judge,
    evidence: Evidence,
    made: Sequence[Sighting],
    base: Sequence[Sighting],
    real: Sequence[Sighting],
) -> Vectors:
    """Returns the judge's vectors of all pictures."""
    everything = judge([*made, *base, *real])
    generated, base_BD, photos_GD = np.split(everything, [len(made), len(made) + len(base)])
    return Vectors(
        generated_RKD=generated.reshape(len(evidence.generated), -1, everything.shape[1]),
        base_BD=base_BD,
        photos_GD=photos_GD,
        reference_R=evidence.reference_R,
    )


def copying_figures(evidence: Evidence) -> dict[str, float | None]:
    """Returns how near pictures come to the very photo, and how much they vary, as correlations.

    Keys: `generated` (with the reference photo), `other_photo` (other photos of the person with the reference
        photo),
    `diversity` (1 - mean correlation between a reference's pictures), `base_diversity` (the same for the base
    alone).
    """
    photos_GD = metrics.picture_vectors(np.stack([photo.target_uint8 for photo in evidence.photos]))
    made_RKD = np.stack([metrics.picture_vectors(np.stack(row)) for row in evidence.generated])
    base_BD = metrics.picture_vectors(np.stack(evidence.base))
    people_G = np.array([photo.person for photo in evidence.photos])
    people_R = people_G[evidence.reference_R]
    references_RD = photos_GD[evidence.reference_R]
    same_RG = evidence.reference_R[:, None] == np.arange(len(people_G))[None, :]
    by_reference = {
        "generated": metrics.own_similarity(made_RKD, references_RD).mean(axis=1),
        "other_photo": metrics.same_similarity(references_RD, photos_GD, people_R, people_G, same_RG),
        "diversity": metrics.diversity(made_RKD),
    }
    figures: dict[str, float | None] = {}
    for name, values in by_reference.items():
        _, values_P = metrics.mean_by_person(values, people_R)
        figures[name] = float(values_P.mean()) if len(values_P) else None
    base_diversity = float(metrics.diversity(base_BD[None])[0])
    return figures | {"base_diversity": None if np.isnan(base_diversity) else base_diversity}
