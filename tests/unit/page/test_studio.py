"""What the page does, without a browser: a drawing hand that is quick stands in for the model."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from components.inference import Blocked, CardStore, Consent, Dials, FaceError, IdentityCard, read_recipe
from components.inference.provenance import recipe, with_recipe
from components.page import Ask, PageConfig, Studio, words
from components.page.studio import Refusal, explain
from flows.page import page_auth


class Hand:
    """Draws plain squares, and remembers what it was asked for."""

    model_version = "models:/photoverse/1"
    attachment = SimpleNamespace(adapter=SimpleNamespace(m=3))

    def __init__(self):
        self.asked, self.blocked, self.fault = [], set(), None

    def card(self, photo, consent, expires=None):
        if self.fault:
            raise self.fault
        words_mD, tokens_ND = torch.zeros(3, 4), torch.zeros(3, 4)
        return IdentityCard(words_mD, tokens_ND, "a", "b", Consent.of(consent), datetime.now(UTC), expires)

    def start_image(self, photo):
        return Image.new("RGB", (64, 64))

    def similarity(self, photo, pictures):
        return [0.5]

    def generate_each(self, persons, prompts, seeds, dials, negative, starts, keep_prompt):
        self.asked.append((prompts[0], seeds[0], dials, starts[0]))
        if seeds[0] in self.blocked:
            return [Blocked(seeds[0])]
        facts = recipe(
            prompt=prompts[0], seed=seeds[0], dials=dials, adapter_hash="a", base_hash="b", keep_prompt=True
        )
        return [with_recipe(Image.new("RGB", (64, 64)), facts)]


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def studio(hand, tmp_path):
    return Studio(hand, Dials(sigma=0.7), CardStore(tmp_path / "people"), PageConfig(max_images=4))


@pytest.fixture
def ask(tmp_path):
    return {"photo": tmp_path / "me.png", "prompt": "S* smiling", "agreed": True, "seed": 5, "count": 2}


def test_each_picture_comes_with_file_similarity_and_recipe(studio, hand, ask, tmp_path):
    shots = list(studio.draw(Ask(**ask, dials={"gamma": 1.5}), tmp_path))
    assert [shot.seed for shot in shots] == [5, 6]
    assert shots[0].caption == "similarity 0.50 · seed 5"
    assert read_recipe(shots[1].file) == shots[1].recipe
    assert shots[1].recipe["prompt"] == "S* smiling"
    dials = hand.asked[0][2]
    assert (dials.gamma, dials.sigma) == (1.5, 0.7)
    assert hand.asked[0][3] is None


def test_a_strength_starts_from_the_photo(studio, hand, ask, tmp_path):
    list(studio.draw(Ask(**ask, dials={"strength": 0.5}), tmp_path))
    assert isinstance(hand.asked[0][3], Image.Image)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"photo": None}, words.NO_PERSON),
        ({"agreed": False}, words.NO_CONSENT),
        ({"prompt": "  "}, words.NO_PROMPT),
        ({"prompt": "a person"}, words.NO_SUBJECT),
        ({"photo": None, "card": "0" * 32, "dials": {"strength": 0.5}}, words.NO_START),
        ({"prompt": "S*" * 600}, "Too many words: 1200 characters; allowed are 1000."),
        ({"count": 5}, "1 to 4 pictures a time."),
        ({"photo": None, "card": "../../etc"}, "No card '../../etc' is kept here"),
        ({"dials": {"num_inference_steps": 900}}, "Steps: at most 60"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_drawn(studio, hand, ask, tmp_path, changes, said):
    with pytest.raises(Refusal) as refused:
        list(studio.draw(Ask(**(ask | changes)), tmp_path))
    assert str(refused.value) == said
    assert hand.asked == []


def test_faults_of_the_photo_are_sentences_and_ours_are_a_mark(studio, hand, ask, tmp_path):
    hand.fault = FaceError("no_face", "no face found in the photo")
    with pytest.raises(Refusal, match="Try one that shows the face"):
        list(studio.draw(Ask(**ask), tmp_path))
    hand.fault = RuntimeError("secret path /home/me")
    with pytest.raises(RuntimeError) as ours:
        list(studio.draw(Ask(**ask), tmp_path))
    assert "secret" not in explain(ours.value)
    assert "not with your photo" in explain(ours.value)


def test_a_blocked_picture_is_a_shot_without_a_file(studio, hand, ask, tmp_path):
    hand.blocked = {6}
    shots = list(studio.draw(Ask(**ask), tmp_path))
    assert [shot.file is None for shot in shots] == [False, True]


def test_a_person_is_kept_drawn_and_listed(studio, ask, tmp_path):
    name = studio.keep(tmp_path / "me.png", "ada", "pictures of a test", agreed=True, days=30)
    assert studio.people() == [("ada: pictures of a test", name)]
    shots = list(studio.draw(Ask(photo=None, card=name, prompt="S*", count=2), tmp_path))
    assert shots[0].similarity is None
    audit = CardStore(tmp_path / "people").audit.rows("ada")
    assert [(row.event, row.pictures) for row in audit][-1] == ("used", 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, "ada", "x", True), "Add a photo"),
        (("me.png", "ada", "x", False), "tick"),
        (("me.png", " ", "x", True), "a name"),
        (("me.png", "no spaces allowed", "x", True), "consent"),
    ],
)
def test_nobody_is_kept_without_name_consent_and_photo(studio, tmp_path, given, said):
    photo, person, purpose, agreed = given
    with pytest.raises(Refusal, match=said):
        studio.keep(photo and tmp_path / photo, person, purpose, agreed, None)
    assert studio.people() == []


def test_beyond_this_machine_a_password_is_asked_for():
    assert page_auth("127.0.0.1", None) is None
    assert page_auth("localhost", None) is None
    name, password = page_auth("0.0.0.0", None)
    assert name == "photoverse"
    assert len(password) >= 12
    assert page_auth("0.0.0.0", "me:it") == ("me", "it")
    with pytest.raises(ValueError, match="NAME:PASSWORD"):
        page_auth("127.0.0.1", "me")
