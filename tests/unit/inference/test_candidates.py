"""Best of n: which pictures are drawn, which one is kept, and when there is nothing to choose by."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.face import FaceConfig, IdentityEncoder, align_face, identity_onnx_path, load_detector
from components.inference import (
    Blocked,
    Dials,
    IdentityCard,
    Personalizer,
    combine_cards,
    embed_watermark,
    has_watermark,
)
from components.inference.drawer import Drawer, candidate_seeds
from components.inference.likeness import Likeness, pixels
from components.inference.photo import read_photo
from tests.unit.inference.conftest import FEW

FOUR = FEW.model_copy(update={"candidates": 4})


class Brightest:
    """Finds the brightest picture the most like anybody, and remembers whom it was asked about."""

    def __init__(self):
        self.asked, self.seen = [], []

    def best(self, identity, pictures):
        self.asked.append(identity)
        self.seen += list(pictures)
        return int(np.argmax([picture.mean() for picture in pictures]))


@pytest.fixture
def known(cards) -> list[IdentityCard]:
    return [replace(card, identity=torch.full((4,), float(i))) for i, card in enumerate(cards)]


@pytest.fixture
def choosing(personalizer, monkeypatch):
    """The personalizer with an eye for bright pictures, and that eye."""
    eye = Brightest()
    drawer = Drawer(personalizer.attachment, None, lambda: eye, embed_watermark)
    monkeypatch.setattr(personalizer, "_drawer", drawer)
    return personalizer, eye


def test_more_candidates_begin_with_the_same_seeds():
    assert candidate_seeds(7, 1) == [7]
    assert candidate_seeds(7, 5)[:3] == candidate_seeds(7, 3)
    seeds = {seed for first in range(50) for seed in candidate_seeds(first, 8)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_best_of_the_candidates_is_kept_and_alone_or_in_a_batch_it_is_the_same(choosing, known):
    personalizer, eye = choosing
    together = personalizer.generate(known[:3], ["a photo of S*"] * 3, [5, 6, 7], FOUR, batch_size=5)
    assert [int(identity[0]) for identity in eye.asked] == [0, 1, 2]
    for i, (card, seed) in enumerate(zip(known[:3], (5, 6, 7), strict=True)):
        seeds = candidate_seeds(seed, 4)
        drawn = personalizer.generate([card] * 4, ["a photo of S*"] * 4, seeds, FEW)
        levels = [pixels(image).astype(int) for image in drawn]
        best = max(levels, key=np.mean)
        assert np.abs(best - pixels(together[i]).astype(int)).max() <= 1
        assert sum(np.abs(best - other).max() <= 1 for other in levels) == 1  # four pictures, not one


def test_candidates_are_compared_as_they_are_handed_out_with_their_mark(choosing, known):
    personalizer, eye = choosing
    (image,) = personalizer.generate(known[:1], ["a photo of S*"], [5], FOUR)
    assert has_watermark(image)
    assert any(np.array_equal(pixels(image), candidate) for candidate in eye.seen)


def test_a_picture_says_of_how_many_it_is_the_best(choosing, known):
    (image,) = choosing[0].generate(known[:1], ["S*"], [5], FOUR)
    recipe = json.loads(image.info["photoverse"])
    assert (recipe["seed"], recipe["dials"]["candidates"]) == (5, 4)
    again = choosing[0].generate(known[:1], ["S*"], [recipe["seed"]], Dials(**recipe["dials"]))[0]
    assert np.array_equal(pixels(image), pixels(again))


@pytest.mark.parametrize("who", ["nobody", "two people", "a card without identity"])
def test_where_there_is_nothing_to_choose_by_one_is_drawn(choosing, cards, known, who, caplog):
    personalizer, eye = choosing
    person, prompt = {
        "nobody": (None, "a person"),
        "two people": (known[:2], "S1* and S2*"),
        "a card without identity": (cards[0], "S*"),
    }[who]
    one, four = (personalizer.generate([person], [prompt], [3], dials)[0] for dials in (FEW, FOUR))
    assert np.array_equal(pixels(one), pixels(four))
    assert json.loads(four.info["photoverse"])["dials"]["candidates"] == 1
    assert not eye.asked
    assert ("holds no identity" in caplog.text) == (who == "a card without identity")


def test_a_blocked_candidate_is_passed_over(personalizer, known, monkeypatch):
    eye = Brightest()
    for blocked, left in (([True, False, True, False], 2), ([True] * 4, 0)):
        check = SimpleNamespace(at=iter(blocked))
        drawer = Drawer(
            personalizer.attachment,
            lambda images, c=check: [next(c.at) for _ in images],
            lambda: eye,
            embed_watermark,
        )
        monkeypatch.setattr(personalizer, "_drawer", drawer)
        found = personalizer.generate_each(known[:1], ["S*"], [1], FOUR)[0]
        assert isinstance(found, Blocked) == (left == 0)
    assert len(eye.asked) == 1


def test_without_an_identity_network_candidates_are_an_error(personalizer, known, monkeypatch):
    fault = ValueError("no identity network: set face.identity_onnx or face.pack (looked in nowhere)")
    drawer = Drawer(personalizer.attachment, None, lambda: fault, embed_watermark)
    monkeypatch.setattr(personalizer, "_drawer", drawer)
    with pytest.raises(ValueError, match="4 candidates cannot be compared: no identity network: set face"):
        personalizer.generate(known[:1], ["S*"], [1], FOUR)
    assert personalizer.generate(known[:1], ["S*"], [1], FEW)


def test_a_card_of_a_photo_holds_its_identity(personalizer, photos, model_config, tmp_path):
    from pathlib import Path

    card = personalizer.card(photos[0])
    encoder = IdentityEncoder(identity_onnx_path(FaceConfig(), Path(model_config.base)))
    image = read_photo(photos[0], personalizer.rules)
    face = load_detector(FaceConfig())(image)[0]
    expected = encoder.embed(align_face(image, face.landmarks_xy, encoder.input_size)[None])[0]
    np.testing.assert_allclose(card.identity, expected, atol=1e-6)
    again = IdentityCard.load(card.save(tmp_path / "me.safetensors"))
    assert torch.equal(again.identity, card.identity)
    other = personalizer.card(photos[1])
    both = combine_cards([card, other], "stack").identity
    torch.testing.assert_close(both, torch.nn.functional.normalize(card.identity + other.identity, dim=0))


def test_a_card_of_before_loads_and_has_none(cards, tmp_path):
    assert cards[0].identity is None
    assert IdentityCard.load(cards[0].save(tmp_path / "old.safetensors")).identity is None


def test_a_base_without_an_identity_network_makes_cards_without(personalizer, photos, monkeypatch):
    alone = Personalizer.__new__(Personalizer)
    monkeypatch.setattr(alone, "__dict__", vars(personalizer) | {"_likeness": ValueError("none")})
    assert alone.card(photos[0]).identity is None


def test_a_picture_without_a_face_is_never_the_best_unless_none_shows_one():
    landmarks = np.array([[40, 50], [72, 50], [56, 70], [42, 92], [70, 92]], np.float32)
    face = SimpleNamespace(landmarks_xy=landmarks)
    like, unlike = np.array([[1.0, 0]]), np.array([[-1.0, 0]])
    encoder = SimpleNamespace(input_size=112, embed=lambda faces: like if faces.mean() > 100 else unlike)
    likeness = Likeness(lambda picture: [face] if picture.max() > 0 else [], encoder)
    black, dark, bright = (np.full((112, 112, 3), level, np.uint8) for level in (0, 50, 200))
    assert likeness.best(np.array([1.0, 0]), [black, dark, bright]) == 2
    assert likeness.best(np.array([1.0, 0]), [black, dark]) == 1
    assert likeness.best(np.array([1.0, 0]), [black, black]) == 0
