"""Drawn held-out people as photos, a real detector, and generators of which the right verdict is known."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.evaluation.generate import Shot
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
        identity=np.eye(16, dtype=np.float32)[person],
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

    def __call__(self, shots: Sequence[Shot]) -> list[Image.Image]:
        self.asked += len(shots)
        return [Image.fromarray(self.picture(shot.reference, shot.seed)) for shot in shots]

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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """(ModelConfig, ShardManifest, Checkpoint): untrained adapter, tiny base, people in real shards."""
    import torch

    from components.core import Checkpoint, ShardManifest
    from components.model import ModelConfig, PhotoVerseAdapter, load_base, save_adapter
    from components.shards import ShardWriter, encode
    from tests.factories import tiny_base

    folder = tmp_path_factory.mktemp("small-run")
    model = ModelConfig(base=str(tiny_base(folder / "base")), feature_layers=(1, 3))
    torch.manual_seed(0)
    base = load_base(model)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
    save_adapter(adapter, folder / "adapter.safetensors")
    with ShardWriter(folder, "heldout") as writer:
        for person in range(3):
            for view in range(2):
                writer.write(encode(sample_of(drawn_photo(person, view), base.extractor)))
    manifest = ShardManifest(
        folder=str(folder),
        shards=tuple(writer.shards),
        samples={"heldout": 6},
        rejects=0,
        rejects_file="rejects.parquet",
        feature_shape=base.extractor.shape,
        latent_shape=(8, 16, 16),
    )
    checkpoint = Checkpoint(
        run_name="small",
        folder=str(folder),
        adapter=str(folder / "adapter.safetensors"),
        step=0,
        reference_gain=0.0,
        reference_gain_interval=(-0.1, 0.1),
    )
    return model, manifest, checkpoint


def sample_of(photo: Photo, extractor) -> dict:
    crop = np.repeat(np.repeat(photo.target_uint8, 2, 0), 2, 1)[32:96, 32:96]
    features = extractor(extractor.preprocess(crop[None]))[0].numpy().astype(np.float16)
    identity = np.zeros(32, np.float32)
    identity[0] = 1
    landmarks = photo.landmarks_xy.tolist()
    return {
        "__key__": photo.key,
        "photo.png": crop,
        "mask.png": np.full(crop.shape[:2], 255, np.uint8),
        "target.png": photo.target_uint8,
        "features.npy": features,
        "identity.npy": identity,
        "meta.json": {
            "person": photo.person,
            "group": photo.group,
            "gender": photo.gender,
            "target_landmarks_xy": landmarks,
        },
    }
