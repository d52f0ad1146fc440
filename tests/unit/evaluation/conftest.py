"""Drawn held-out people as photos, a real detector, and generators of which the right verdict is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.evaluation.judges import ColourJudge, FaceFinder
from components.face import FaceConfig, load_detector
from components.portraits.world import portrait

SIZE = 64
PEOPLE, VIEWS = 8, 3


def drawn_photo(person: int, view: int) -> Photo:
    drawn = portrait(800_000 + person, view, SIZE)
    return Photo(
        key=f"{person:04x}{view:04x}-0",
        person=f"p{person}",
        group=str(drawn.attributes["group"]),
        gender=str(drawn.attributes["gender"]),
        target_uint8=drawn.image_uint8,
        landmarks_xy=drawn.landmarks_xy,
        features=np.full((2, 2, 4), person, np.float16),
    )


@pytest.fixture(scope="session")
def photos() -> list[Photo]:
    return [drawn_photo(person, view) for person in range(PEOPLE) for view in range(VIEWS)]


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    return FaceFinder(load_detector(FaceConfig()))


@pytest.fixture(scope="session")
def colour_judge() -> ColourJudge:
    return ColourJudge(bins=8)


@pytest.fixture
def config() -> EvaluationConfig:
    return EvaluationConfig(pictures_per_reference=3, bootstrap_samples=200, batch_size=5, people=None)


class Planted:
    """A generator of which we know what it does; counts what it was asked for."""

    def __init__(self, kind: str) -> None:
        self.kind, self.asked = kind, 0

    def __call__(self, references: Sequence[Photo | None], seeds: Sequence[int]) -> list[np.ndarray]:
        self.asked += len(seeds)
        return [self.picture(reference, seed) for reference, seed in zip(references, seeds, strict=True)]

    def picture(self, reference: Photo | None, seed: int) -> np.ndarray:
        stranger = portrait(1_000_000 + seed % 100_000, seed % 97, SIZE).image_uint8
        if reference is None or self.kind == "strangers":
            return stranger
        if self.kind == "copier":
            return reference.target_uint8
        if self.kind == "keeper":
            return portrait(800_000 + int(reference.person[1:]), 100 + seed % 50, SIZE).image_uint8
        if self.kind == "blank":
            return np.full((SIZE, SIZE, 3), seed % 256, np.uint8)
        raise AssertionError(self.kind)


@pytest.fixture
def planted():
    return Planted
