"""From vectors to figures: one judge's verdict by reference, by person, by group, with intervals.

A figure is a mean over people of a mean over each person's references and pictures, and its interval is over
people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.core import IdentityFigures, StrictConfig, derive_seed
from components.evaluation import metrics
from components.evaluation.data import Photo

COLUMNS = ("generated", "floor", "base_alone", "ceiling", "through_vae", "retrieval_top1", "found")


SHARES = ("retrieval_top1", "found")  # in [0, 1]; the others are cosines


class Figure(StrictConfig):
    """A mean over people; `None` where nothing could be measured (no second photo: no ceiling)."""

    mean: float | None
    interval: tuple[float, float] | None
    people: int


class JudgeFigures(StrictConfig):
    """One judge's table: rows "all", "group: X", "gender: X"; columns as in `COLUMNS`."""

    judge: str
    rows: dict[str, dict[str, Figure]]
    largest_gap: float
    ceiling_retrieval_top1: float | None


@dataclass(frozen=True)
class Vectors:
    """What one judge made of all pictures. Legend as in metrics; B pictures of the base model.

    Attributes:
        generated_RKD: Generated pictures of each reference.
        base_BD: Pictures of the base model alone.
        photos_GD: All real photos, in the order of `photos`.
        reference_R: Index of each reference in `photos`.
        through_vae_RD: The references through the VAE; None where nobody did it.
    """

    generated_RKD: NDArray
    base_BD: NDArray
    photos_GD: NDArray
    reference_R: NDArray[np.intp]
    through_vae_RD: NDArray | None = None


def score_references(vectors: Vectors, photos: Sequence[Photo]) -> dict[str, NDArray[np.float64]]:
    """Returns for each column of `COLUMNS` the values by reference (R,); NaN where nothing is known."""
    people_G = np.array([photo.person for photo in photos])
    people_R = people_G[vectors.reference_R]
    references_RD = vectors.photos_GD[vectors.reference_R]
    very_same_RG = vectors.reference_R[:, None] == np.arange(len(photos))[None, :]
    hits = metrics.retrieval_hits(vectors.generated_RKD, references_RD, people_R, people_R)
    return {
        "generated": metrics.own_similarity(vectors.generated_RKD, references_RD).mean(axis=1),
        "floor": metrics.others_similarity(references_RD, people_R),
        "base_alone": (references_RD @ vectors.base_BD.T).mean(axis=1),
        "ceiling": metrics.same_similarity(
            references_RD, vectors.photos_GD, people_R, people_G, very_same_RG
        ),
        "through_vae": np.full(len(people_R), np.nan)
        if vectors.through_vae_RD is None
        else (vectors.through_vae_RD * references_RD).sum(axis=1),
        "retrieval_top1": hits.mean(axis=1),
        "found": vectors.generated_RKD.any(axis=-1).mean(axis=1),
    }


def ceiling_retrieval(vectors: Vectors, photos: Sequence[Photo]) -> float | None:
    """Returns how often another real photo is nearest to a reference of its person; None without one."""
    people_G = np.array([photo.person for photo in photos])
    others = np.setdiff1d(np.arange(len(photos)), vectors.reference_R)
    if len(others) == 0:
        return None
    gallery_GD = vectors.photos_GD[vectors.reference_R]
    hits = metrics.retrieval_hits(
        vectors.photos_GD[others][:, None], gallery_GD, people_G[others], people_G[vectors.reference_R]
    )
    return float(hits.mean())


def figure(
    values_R: NDArray,
    people_R: NDArray,
    *,
    seed: int,
    samples: int,
    confidence: float,
    bounds: tuple[float, float],
) -> Figure:
    """Returns the mean over people and its interval."""
    _, values_P = metrics.mean_by_person(values_R, people_R)
    if len(values_P) == 0:
        return Figure(mean=None, interval=None, people=0)
    interval = metrics.bootstrap_interval(
        values_P, seed=seed, samples=samples, confidence=confidence, bounds=bounds
    )
    return Figure(mean=float(values_P.mean()), interval=interval, people=len(values_P))


def judge_figures(
    judge: str, vectors: Vectors, photos: Sequence[Photo], *, seed: int, samples: int, confidence: float
) -> JudgeFigures:
    """Returns the judge's whole table."""
    references = [photos[i] for i in vectors.reference_R]
    people_R = np.array([photo.person for photo in references])
    columns = score_references(vectors, photos)
    rows = {}
    for name, chosen in row_masks(references).items():
        rows[name] = {
            column: figure(
                values[chosen],
                people_R[chosen],
                seed=derive_seed(seed, judge, name, column) % 2**32,
                samples=samples,
                confidence=confidence,
                bounds=(0.0, 1.0) if column in SHARES else (-1.0, 1.0),
            )
            for column, values in columns.items()
        }
    return JudgeFigures(
        judge=judge,
        rows=rows,
        largest_gap=metrics.largest_gap(_means(rows, "group: ")),
        ceiling_retrieval_top1=ceiling_retrieval(vectors, photos),
    )


def row_masks(references: Sequence[Photo]) -> dict[str, NDArray[np.bool_]]:
    """Returns for each row of the table which references (R,) belong to it."""
    groups = np.array([photo.group for photo in references])
    genders = np.array([photo.gender for photo in references])
    rows = {"all": np.ones(len(references), dtype=bool)}
    rows |= {f"group: {name}": groups == name for name in sorted(set(groups.tolist()) - {""})}
    return rows | {f"gender: {name}": genders == name for name in sorted(set(genders.tolist()) - {""})}


def _means(rows: dict[str, dict[str, Figure]], prefix: str) -> dict[str, float]:
    """Returns the generated mean of each row that begins with the prefix, by the name without it."""
    means = {
        name.removeprefix(prefix): row["generated"].mean
        for name, row in rows.items()
        if name.startswith(prefix)
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def identity_figures(table: JudgeFigures) -> IdentityFigures:
    """Returns the record's short form of a judge's table; None where no ceiling could be measured."""
    row = table.rows["all"]

    def mean(column: str) -> float:
        value = row[column].mean
        return float("nan") if value is None else value

    return IdentityFigures(
        generated=mean("generated"),
        generated_interval=row["generated"].interval or (-1.0, 1.0),
        floor=mean("floor"),
        base_alone=mean("base_alone"),
        ceiling=row["ceiling"].mean,
        through_vae=row["through_vae"].mean,
        retrieval_top1=mean("retrieval_top1"),
        by_group=_means(table.rows, "group: "),
        by_gender=_means(table.rows, "gender: "),
        no_face_rate=min(max(1 - mean("found"), 0.0), 1.0),
    )
