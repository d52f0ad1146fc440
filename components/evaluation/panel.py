"""The panel: all judges look at all pictures, real and generated, at the same size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.core import CopyingFigures
from components.evaluation import metrics
from components.evaluation.config import EvaluationConfig
from components.evaluation.copying import copying_figures
from components.evaluation.evidence import Evidence
from components.evaluation.judges import FaceFinder, Judge, Sighting
from components.evaluation.scores import JudgeFigures, Vectors, judge_figures


@dataclass(frozen=True)
class Verdict:
    """What the judges found.

    Attributes:
        tables: One a judge, the identity judge first.
        similarity_RK: Each picture with its reference, by the identity judge.
        found_RK: Whether each picture holds a face.
        copying: Figures of copying and variety.
        reference_fallbacks: Real photos whose face the detector missed.
        judge_marks: Identity of each judge, by its name.
        by_person: For each judge and person the mean similarity of the person's pictures: what paired
            comparisons of two evaluations need.
    """

    tables: Sequence[JudgeFigures]
    similarity_RK: NDArray[np.float64]
    found_RK: NDArray[np.bool_]
    copying: CopyingFigures
    reference_fallbacks: int
    judge_marks: dict[str, str]
    by_person: dict[str, dict[str, float]]


def judge(
    config: EvaluationConfig, evidence: Evidence, finder: FaceFinder, judges: Sequence[Judge]
) -> Verdict:
    """Lets each judge look at all pictures, real and generated, at the same size."""
    real = [finder(photo.target_uint8, photo.landmarks_xy) for photo in evidence.photos]
    made = [finder(picture) for row in evidence.generated for picture in row]
    base = [finder(picture) for picture in evidence.base]
    decoded = [finder(picture) for picture in evidence.through_vae]
    tables: list[JudgeFigures] = []
    similarities_RK: list[NDArray] = []
    everything = [vectors_of(one, evidence, made, base, real, decoded) for one in judges]
    identity = everything[0]
    for one, vectors in zip(judges, everything, strict=True):
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
        copying=copying_figures(evidence, identity, made, real),
        reference_fallbacks=sum(not sighting.detected for sighting in real),
        judge_marks={one.name: one.mark for one in judges},
        by_person={
            one.name: _by_person(values, evidence)
            for one, values in zip(judges, similarities_RK, strict=True)
        },
    )


def _by_person(similarity_RK: NDArray, evidence: Evidence) -> dict[str, float]:
    people_R = np.array([reference.person for reference in evidence.references])
    people, means = metrics.mean_by_person(similarity_RK.mean(axis=1), people_R)
    return {str(person): round(float(mean), 6) for person, mean in zip(people, means, strict=True)}


def vectors_of(
    judge: Judge,
    evidence: Evidence,
    made: Sequence[Sighting],
    base: Sequence[Sighting],
    real: Sequence[Sighting],
    decoded: Sequence[Sighting],
) -> Vectors:
    """Returns the judge's vectors of all pictures."""
    everything = judge([*made, *base, *real, *decoded])
    ends = np.cumsum([len(made), len(base), len(real)])
    generated, base_BD, photos_GD, through_vae_RD = np.split(everything, ends)
    return Vectors(
        generated_RKD=generated.reshape(len(evidence.generated), -1, everything.shape[1]),
        base_BD=base_BD,
        photos_GD=photos_GD,
        reference_R=evidence.reference_R,
        through_vae_RD=through_vae_RD if len(decoded) else None,
    )
