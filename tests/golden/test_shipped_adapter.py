"""The adapter that comes with the portrait base: small, true to people it never saw, obedient to words."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.evaluation.obedience import AttributeReader
from components.face import FaceConfig, load_detector
from components.inference.likeness import Likeness
from components.portraits.world import portrait
from flows.config import anchored, resolve
from flows.single import SHIPPED_ADAPTER, load_personalizer

HELDOUT = range(900_000, 900_012)  # neither in training nor in evaluation


def shipped_dials(candidates: int):
    return resolve("portraits").batch.dials.model_copy(update={"candidates": candidates})


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
    pictures = personalizer.generate(
        cards, ["a photo of S*"] * len(cards), seeds=range(len(cards)), dials=shipped_dials(1)
    )
    found = np.array([personalizer.similarity(path, pictures) for path in photos], float)  # NaN: no face
    own, other = np.diag(found), found[~np.eye(len(found), dtype=bool)]
    assert np.isnan(own).sum() <= 1
    assert np.nanmean(own) - np.nanmean(other) > 0.3  # .40 when it was made; two photos of a person: .79


def test_the_best_of_four_is_more_alike_by_a_judge_that_did_not_choose(personalizer):
    base = Path(personalizer.attachment.pipe.name_or_path)
    detect = load_detector(FaceConfig())
    judge = Likeness.load(FaceConfig(identity_onnx=str(base / "face_pack" / "judge.onnx")), None, detect)
    people = [portrait(person, 0, 128).image_uint8 for person in HELDOUT]
    cards = [personalizer.card(photo, "a drawing") for photo in people]
    kept = []
    for candidates in (1, 4):
        dials = shipped_dials(candidates)
        pictures = personalizer.generate(cards, ["a photo of S*"] * len(cards), range(len(cards)), dials)
        shown = [np.asarray(picture) for picture in pictures]
        kept.append(
            np.mean([judge(*pair)[0] or 0 for pair in zip(people, ([p] for p in shown), strict=True)])
        )
    assert kept[1] > kept[0] + 0.02


def test_it_puts_glasses_on_those_who_wear_none(personalizer):
    read = AttributeReader(Path(personalizer.attachment.pipe.name_or_path) / "attributes")
    people = [portrait(person, 0, 128) for person in HELDOUT]
    cards = [
        personalizer.card(one.image_uint8, "a drawing") for one in people if not one.attributes["glasses"]
    ]
    worn = {}
    for prompt in ("a photo of S*", "a photo of S* with glasses"):
        pictures = personalizer.generate(cards, [prompt] * len(cards), range(len(cards)), shipped_dials(1))
        seen = read([np.asarray(picture) for picture in pictures])
        worn[prompt] = np.mean([one["glasses"] == "True" for one in seen])
    assert worn["a photo of S* with glasses"] > 0.75
    assert worn["a photo of S*"] < 0.25
