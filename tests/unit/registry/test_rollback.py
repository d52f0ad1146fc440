"""Dry runs, promotion by hand, the way back, and who did what: on a real registry."""

import pytest

from components.registry import RegistryConfig, read_entries, roll_back
from components.registry.audit import Entry, write_entry

WORSE = {"generated": 0.4, "generated_interval": (0.35, 0.45)}


def config(run) -> RegistryConfig:
    return RegistryConfig(model_name=run.store.name)


def test_a_dry_run_says_the_decision_and_changes_nothing(run, report, checkpoint):
    good = run(report(), checkpoint(), dry_run=True)
    assert (good.decision, good.version, good.model_uri) == ("promoted", None, None)
    assert all(reason.startswith("passed: ") for reason in good.reasons)
    assert run(report(no_face_rate=0.9), checkpoint(), dry_run=True).decision == "registered"
    assert run.store.versions() == []
    run(report(), checkpoint())
    again = run(report(**WORSE), checkpoint("other", b"other"), dry_run=True)
    assert again.decision == "registered"
    assert "champion version 1" in again.reasons[0]
    assert len(run.store.versions()) == 1
    assert run.store.by_alias("challenger") is None


def test_a_rollback_is_one_step_and_the_gate_never_undoes_it(run, report, checkpoint):
    run(report(), checkpoint())
    run(report(generated=0.6), checkpoint("second", b"second"))
    assert roll_back(run.store, config(run), reason="beards came out green", who="ann@here") == ("2", "1")
    assert run.store.version("champion").version == 1
    again = run(report(generated=0.6), checkpoint("second", b"second"))
    assert again.decision == "registered"
    assert "beards came out green" in again.reasons[0]
    assert run.store.version("champion").version == 1
    assert run.store.version("challenger").version == 2
    by_hand = run(report(generated=0.6), checkpoint("second", b"second"), by_hand="it was the printer")
    assert by_hand.decision == "promoted"
    assert run.store.version("champion").version == 2
    assert run.store.by_alias("challenger") is None


def test_a_rollback_goes_back_step_by_step_or_to_a_named_version(run, report, checkpoint):
    for number, generated in enumerate((0.5, 0.6, 0.7)):
        run(report(generated=generated), checkpoint(f"run{number}", bytes([number])))
    assert roll_back(run.store, config(run), reason="a") == ("3", "2")
    assert roll_back(run.store, config(run), reason="b") == ("2", "1")
    with pytest.raises(ValueError, match="--to"):
        roll_back(run.store, config(run), reason="c")
    assert roll_back(run.store, config(run), reason="d", to="3") == ("1", "3")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"reason": "x", "to": "9"}, "no version"),
        ({"reason": "x", "to": "1"}, "already"),
    ],
)
def test_a_rollback_that_makes_no_sense_is_refused(run, report, checkpoint, arguments, words):
    run(report(), checkpoint())
    with pytest.raises(ValueError, match=words):
        roll_back(run.store, config(run), **arguments)
    assert run.store.version("champion").version == 1


def test_nothing_to_roll_back_is_said(run):
    with pytest.raises(ValueError, match="has no champion"):
        roll_back(run.store, config(run), reason="x")


def test_a_person_may_promote_what_the_gate_registers_but_not_what_it_refuses(
    run, report, checkpoint, manifest
):
    by_hand = run(report(no_face_rate=0.9), checkpoint(), by_hand="a demo tomorrow", who="ann@here")
    assert by_hand.decision == "promoted"
    assert by_hand.reasons[0] == "by hand: a demo tomorrow (ann@here)"
    assert any(reason.startswith("failed: ") for reason in by_hand.reasons)
    blocked = {"thresholds": {"blocked_licences": ["CC0*"]}}
    refused = run(report(), checkpoint("other", b"other"), by_hand="please", registry=blocked)
    assert (refused.decision, refused.version) == ("refused", None)


def test_who_did_what_and_why_is_kept_in_order(run, report, checkpoint):
    assert read_entries(run.store) == []
    run(report(), checkpoint(), who="nightly@farm")
    run(report(**WORSE), checkpoint("other", b"other"), who="nightly@farm")
    run(report(**WORSE), checkpoint("other", b"other"), by_hand="prettier", who="ann@here")
    roll_back(run.store, config(run), reason="not prettier", who="bob@here")
    entries = read_entries(run.store)
    said = [(e.who, e.action, e.version, e.before, e.champion) for e in entries]
    assert said == [
        ("nightly@farm", "promoted", "1", None, "1"),
        ("nightly@farm", "registered", "2", "1", "1"),
        ("ann@here", "promoted by hand", "2", "1", "2"),
        ("bob@here", "rolled back", "2", "2", "1"),
    ]
    assert "generated similarity 0.4000 is less than" in entries[1].reasons[0]
    assert entries[3].reasons == ("not prettier",)
    assert run.store.version("2").tags["photoverse.decided_by"] == "ann@here"


def test_an_entry_with_endless_reasons_still_fits(run, report, checkpoint):
    run(report(), checkpoint())
    last = read_entries(run.store)[-1]
    write_entry(run.store, Entry(**last.model_dump() | {"at": "9999", "reasons": ["x" * 3000] * 40}))
    kept = read_entries(run.store)[-1]
    assert kept.reasons[-1] == "..."
    assert len(kept.reasons) > 5


def test_the_card_goes_with_the_version(run, report, checkpoint):
    run(report(), checkpoint())
    description = run.store.version("1").description
    for words in ("## Intended use", "## Limits", "CC0-1.0 (680 photos)", "base: not stated"):
        assert words in description
