"""The engine with a fake personalizer: who is drawn with whom, and whose fault is whose."""

import dataclasses
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from components.inference import Blocked, BlockedError, CardStore, Consent, IdentityCard
from components.registry import Drawn, Job, PersonalizerEngine, Request

CONSENT = {"person": "anna", "purpose": "a test", "given": "2026-01-01"}
PHOTO = np.zeros((8, 8, 3), np.uint8)


class FakePersonalizer:
    """Remembers what was drawn together; prompts ask for faults."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.attachment = SimpleNamespace(inputs=self._inputs)

    def _inputs(self, prompts, persons, dials, negatives):
        if "too long" in prompts[0]:
            raise ValueError("the prompt is 9 tokens too long")

    def card(self, photo, consent):
        if photo.max() == 255:
            raise ValueError("no face found in the photo")
        return SimpleNamespace(consent=consent)

    def start_image(self, photo):
        return Image.fromarray(photo)

    def generate_each(self, cards, prompts, seeds, dials, negatives, starts, batch_size):
        self.calls.append(list(prompts))
        self.last = SimpleNamespace(cards=cards, seeds=seeds, dials=dials, starts=starts)
        if any("bug" in prompt for prompt in prompts):
            raise RuntimeError("a fault of ours")
        return [
            Blocked(seed) if "nude" in prompt else Image.new("RGB", (4, 4), (seed % 256, 0, 0))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def similarity(self, photo, pictures):
        return [0.5] * len(pictures)


@pytest.fixture
def tool():
    return FakePersonalizer()


def job(prompt="S*", photo=PHOTO, **values) -> Job:
    shared = {"consent": CONSENT, "photo": ""} if photo is not None else {}
    return Job(Request.model_validate(shared | {"prompt": prompt} | values), photo)


def test_jobs_of_different_people_are_drawn_in_one_call_and_keep_their_order(tool):
    results = PersonalizerEngine(tool, {})([job("a", seed=1, pictures=2), job("b", seed=9)])
    assert tool.calls == [["a", "a", "b"]]
    assert tool.last.seeds == [1, 2, 9]
    assert [[picture.getpixel((0, 0))[0] for picture in one.pictures] for one in results] == [[1, 2], [9]]
    assert set(results[0].seconds) == {"person", "drawing"}


def test_the_callers_fault_is_seen_before_anything_is_drawn(tool):
    results = PersonalizerEngine(tool, {})([job("a"), job("too long"), job("c", np.full_like(PHOTO, 255))])
    assert tool.calls == [["a"]]
    assert isinstance(results[0], Drawn)
    assert [str(one) for one in results[1:]] == [
        "the prompt is 9 tokens too long",
        "no face found in the photo",
    ]


def test_a_blocked_picture_ends_its_own_job_and_nobody_is_drawn_again(tool):
    results = PersonalizerEngine(tool, {})([job("a"), job("nude", seed=7, pictures=2), job("c")])
    assert tool.calls == [["a", "nude", "nude", "c"]]
    assert [type(one) for one in results] == [Drawn, BlockedError, Drawn]
    assert results[1].seeds == (7, 8)
    assert results[1].reason == "blocked"


def test_a_fault_of_ours_fails_its_own_job_alone(tool):
    results = PersonalizerEngine(tool, {})([job("a"), job("bug"), job("c")])
    assert tool.calls == [["a", "bug", "c"], ["a"], ["bug"], ["c"]]
    assert [type(one) for one in results] == [Drawn, RuntimeError, Drawn]


def test_a_requests_dials_lie_over_the_models_own(tool):
    model = {"num_inference_steps": 7, "sigma": 0.5, "strength": None}
    PersonalizerEngine(tool, model)([job(dials={"sigma": 0.9}, strength=0.4), job()])
    first, second = tool.last.dials
    assert (first.sigma, first.num_inference_steps, first.strength) == (0.9, 7, 0.4)
    assert (second.sigma, second.strength) == (0.5, None)
    assert [start is not None for start in tool.last.starts] == [True, False]


def test_similarity_is_told_where_it_is_asked_for_and_known(tool, monkeypatch):
    engine = PersonalizerEngine(tool, {})
    asked, silent = engine([job(similarity=True, pictures=2), job()])
    assert asked.similarity == [0.5, 0.5]
    assert silent.similarity is None

    def unknown(photo, pictures):
        raise ValueError("no identity network: looked in /secret/place")

    monkeypatch.setattr(tool, "similarity", unknown)
    (fault,) = engine([job(similarity=True)])
    assert str(fault) == "similarity: this model has no identity network"


@pytest.fixture
def store(tmp_path) -> CardStore:
    return CardStore(tmp_path)


@pytest.fixture
def card() -> IdentityCard:
    some = torch.zeros(1, 2)
    return IdentityCard(some, some + 1, "a", "b", Consent.model_validate(CONSENT), datetime.now(UTC))


def test_a_kept_card_stands_for_its_person_and_its_use_is_logged(tool, store, card):
    name = store.keep(card)
    (result,) = PersonalizerEngine(tool, {}, store)([job(photo=None, card=name, pictures=3)])
    assert isinstance(result, Drawn)
    assert tool.last.cards[0].consent.person == "anna"
    assert [(row.event, row.pictures) for row in store.audit.rows("anna")] == [("made", 0), ("used", 3)]


def test_cards_that_are_unknown_or_expired_and_withdrawn_consents_are_refused(tool, store, card):
    engine = PersonalizerEngine(tool, {}, store)
    over = dataclasses.replace(card, expires=datetime.now(UTC) - timedelta(days=1))
    over.save(store.cards / f"{'e' * 32}.safetensors")
    store.audit.add("forgotten", "anna")
    unknown, expired, withdrawn = engine(
        [job(photo=None, card="f" * 32), job(photo=None, card="e" * 32), job()]
    )
    assert "no card" in str(unknown)
    assert "has expired and is removed" in str(expired)
    assert "was withdrawn" in str(withdrawn)
    (nowhere,) = PersonalizerEngine(tool, {})([job(photo=None, card="f" * 32)])
    assert "no cards are kept here" in str(nowhere)
    assert tool.calls == []
