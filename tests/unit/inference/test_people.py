"""Consent, kept cards, the audit log, and forgetting a person with a proof."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
import torch

from components.inference import CardStore, Consent, IdentityCard, Ledger, LedgerRow, forget_person


def card(person="anna", given=date(2026, 1, 1), **facts) -> IdentityCard:
    values = {
        "words": torch.full((3, 8), 0.123),
        "visual_tokens": torch.full((4, 8), 0.456),
        "adapter_hash": "a" * 64,
        "base_hash": "b" * 16,
        "consent": Consent(person=person, purpose="birthday cards", given=given),
        "created": datetime.now(UTC),
    }
    return IdentityCard(**values | facts)


@pytest.fixture
def store(tmp_path) -> CardStore:
    return CardStore(tmp_path / "people")


def test_a_kept_card_says_who_agreed_when_and_for_what(store):
    again = store.load(store.keep(card()))
    assert again.consent == Consent(person="anna", purpose="birthday cards", given=date(2026, 1, 1))
    (kept,) = store.all()
    assert kept.consent == again.consent
    assert "anna" not in kept.id


def test_nothing_is_kept_of_a_person_who_is_not_named(store):
    with pytest.raises(ValueError, match="needs the person's ID"):
        store.keep(card(consent=Consent(purpose="nobody says who")))
    assert store.all() == []


def test_consent_counts_from_its_day_on(store, monkeypatch):
    class LastMinute(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 6, 1, 23, 59, tzinfo=tz)

    monkeypatch.setattr("components.inference.consent.datetime", LastMinute)
    with pytest.raises(ValueError, match="2026-06-02 is in the future"):
        store.keep(card(given=date(2026, 6, 2)))
    assert store.all() == []
    store.keep(card(given=date(2026, 6, 1)))
    assert len(store.all()) == 1


@pytest.mark.parametrize(
    "values", [{}, {"purpose": " "}, {"purpose": "x", "person": "../anna"}, {"purpose": "x", "given": "soon"}]
)
def test_a_consent_that_says_nothing_is_refused(values):
    with pytest.raises(ValueError, match="Consent"):
        Consent.parse(values, source="test")


def test_a_card_of_the_first_schema_still_loads_with_its_words(tmp_path):
    from safetensors.torch import save

    facts = {
        "format": "photoverse-card", "schema_version": 1, "adapter_hash": "a", "base_hash": "b",
        "consent": "drawn", "created": "2026-01-01T00:00:00+00:00", "expires": None, "photos": 1,
    }  # fmt: skip
    path = tmp_path / "old.safetensors"
    tensors = {"words": torch.zeros(1, 2), "visual_tokens": torch.zeros(1, 2)}
    path.write_bytes(save(tensors, metadata={"card": json.dumps(facts)}))
    assert IdentityCard.load(path).consent == Consent(purpose="drawn", given=date(2026, 1, 1))


@pytest.mark.parametrize("name", ["", "../../secret", "f" * 32, "A" * 32, "x" * 1000])
def test_a_card_is_found_by_its_id_alone(store, name):
    store.keep(card())
    with pytest.raises(ValueError, match="no card"):
        store.load(name)


def test_cards_expire_and_go(store):
    soon = datetime.now(UTC) + timedelta(days=1)
    name, stays = store.keep(card(expires=soon)), store.keep(card("bob"))
    assert store.sweep() == []
    assert [kept.id for kept in store.sweep(now=soon)] == [name]
    assert [kept.id for kept in store.all()] == [stays]
    assert [row.event for row in store.audit.rows("anna")] == ["made", "expired"]


def test_an_expired_card_that_is_asked_for_is_removed(store, monkeypatch):
    name = store.keep(card(expires=datetime.now(UTC) + timedelta(seconds=0.2)))
    import time

    time.sleep(0.3)
    with pytest.raises(ValueError, match="has expired and is removed"):
        store.load(name)
    assert store.all() == []


def test_forgetting_removes_all_that_shows_a_person_and_proves_it(store, tmp_path):
    runs = tmp_path / "runs"
    mine = store.keep(card())
    others = store.keep(card("bob"))
    elsewhere = card().save(runs / "desk" / "me.safetensors")
    ledger = Ledger(runs / "nightly" / "personalize")
    for person in ("anna", "bob"):
        files = (f"pictures/{person}-0.png", f"pictures/{person}-1.png")
        thumbnail = f"thumbnails/{person}-0.jpg"
        for name in (*files, thumbnail):
            (ledger.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (ledger.folder / name).write_bytes(b"a face")
        row = {"line": 1, "id": person, "status": "done", "person": person, "request_hash": person}
        ledger.append(LedgerRow(**row, files=files, thumbnail=thumbnail))
    proof = forget_person("anna", store, [runs])
    assert proof.left == ()
    assert {path.name for path in proof.removed} == {
        *(f"{mine}.safetensors", "me.safetensors", "anna-0.png", "anna-1.png", "anna-0.jpg"),
    }
    assert not any(path.exists() for path in [*proof.removed, elsewhere])
    assert [kept.id for kept in store.all()] == [others]
    assert sorted(path.name for path in (ledger.folder / "pictures").iterdir()) == ["bob-0.png", "bob-1.png"]
    assert list(ledger.done()) == ["bob"]
    assert [(row.id, row.status) for row in ledger.rows()][2:] == [("anna", "forgotten")]
    assert forget_person("anna", store, [runs]).removed == ()
    assert len(ledger.rows()) == 3


def test_a_forgotten_person_needs_a_newer_consent(store):
    store.keep(card())
    forget_person("anna", store, [])
    with pytest.raises(ValueError, match="given on 2026-01-01 was withdrawn on .* a newer one is needed"):
        store.keep(card())
    store.keep(card("bob"))
    with pytest.raises(ValueError, match="withdrawn"):
        store.keep(card(given=store.audit.rows("anna")[-1].at.date()))  # the day itself is not newer


def test_the_audit_log_only_grows_and_holds_nothing_biometric(store):
    lengths = []
    name = store.keep(card())
    lengths.append(store.audit.path.read_bytes())
    store.used(name, "a test", 3)
    lengths.append(store.audit.path.read_bytes())
    forget_person("anna", store, [])
    lengths.append(store.audit.path.read_bytes())
    assert all(now.startswith(before) for before, now in zip(lengths, lengths[1:], strict=False))
    events = [(row.event, row.card, row.pictures) for row in store.audit.rows("anna")]
    assert events == [("made", name, 0), ("used", name, 3), ("forgotten", name, 0), ("forgotten", "", 1)]
    fields = {key for line in store.audit.path.read_text().splitlines() for key in json.loads(line)}
    assert fields == {"at", "event", "person", "card", "purpose", "pictures"}
    assert "0.123" not in store.audit.path.read_text()


def test_a_writer_that_was_killed_in_a_line_spoils_only_that_line(store):
    store.audit.add("made", "anna")
    with store.audit.path.open("a") as file:
        file.write('{"at": "20')
    store.audit.add("made", "bob")
    assert [row.person for row in store.audit.rows()] == ["anna", "bob"]
