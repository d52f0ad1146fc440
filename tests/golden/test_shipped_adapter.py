"""The adapter that comes with the portrait base: small, of that base, and true to people it never saw."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.face import FaceConfig, load_detector
from components.inference import Dials
from components.inference.likeness import Likeness
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


def test_the_best_of_four_is_more_alike_by_a_judge_that_did_not_choose(personalizer):
    base = Path(personalizer.attachment.pipe.name_or_path)
    detect = load_detector(FaceConfig())
    judge = Likeness.load(FaceConfig(identity_onnx=str(base / "face_pack" / "judge.onnx")), None, detect)
    people = [portrait(person, 0, 128).image_uint8 for person in HELDOUT]
    cards = [personalizer.card(photo, "a drawing") for photo in people]
    kept = []
    for candidates in (1, 4):
        dials = Dials(
            num_inference_steps=6, guidance_scale=3, sigma=0.75, sigma_schedule=((0, 0), (0.16, 1)),
            candidates=candidates,
        )  # fmt: skip
        pictures = personalizer.generate(cards, ["a photo of S*"] * len(cards), range(len(cards)), dials)
        shown = [np.asarray(picture) for picture in pictures]
        kept.append(
            np.mean([judge(*pair)[0] or 0 for pair in zip(people, ([p] for p in shown), strict=True)])
        )
    assert kept[1] > kept[0] + 0.02
