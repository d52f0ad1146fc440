"""The adapter that comes with the portrait base: small, of that base, and true to people it never saw."""

import numpy as np
import pytest
from PIL import Image

from components.inference import Dials
from components.portraits.world import portrait
from flows.config import anchored, resolve
from flows.single import SHIPPED_ADAPTER, load_personalizer

HELDOUT = range(900_000, 900_012)  # neither in training nor in evaluation


@pytest.fixture(scope="module")
def personalizer(tmp_path_factory):
    empty = tmp_path_factory.mktemp("no-champion")
    return load_personalizer(anchored(resolve("portraits", {"root": str(empty)}, name="test")), None)


def test_it_is_small_and_says_what_it_is():
    assert SHIPPED_ADAPTER.stat().st_size < 8e6
    assert "Limits" in SHIPPED_ADAPTER.with_name("MODEL_CARD.md").read_text()


def test_people_it_never_saw_are_nearer_to_themselves_than_to_each_other(personalizer, tmp_path):
    photos = [tmp_path / f"{person}.png" for person in HELDOUT]
    for person, path in zip(HELDOUT, photos, strict=True):
        Image.fromarray(portrait(person, 0, 128).image_uint8).save(path)
    cards = [[personalizer.card([path], "a drawing")] for path in photos]
    dials = Dials(num_inference_steps=12, guidance_scale=2)
    pictures = personalizer.generate(
        cards, ["a photo of S*"] * len(cards), seeds=range(len(cards)), dials=dials
    )
    found = np.array([personalizer.similarity(path, pictures) for path in photos], float)  # NaN: no face
    own, other = np.diag(found), found[~np.eye(len(found), dtype=bool)]
    assert np.isnan(own).sum() <= 1
    assert np.nanmean(own) - np.nanmean(other) > 0.2  # .27 when it was made; two photos of a person: .79
