from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import torch

from components.inference import Consent, IdentityCard, combine_cards

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def make_card(seed: int = 0, **facts) -> IdentityCard:
    generator = torch.Generator().manual_seed(seed)
    values = {
        "words": torch.randn(3, 8, generator=generator),
        "visual_tokens": torch.randn(4, 8, generator=generator),
        "adapter_hash": "a" * 64,
        "base_hash": "b" * 16,
        "consent": Consent(person="anna", purpose="my own photo"),
        "created": NOW,
    }
    return IdentityCard(**values | facts)


def test_a_card_comes_back_as_it_was(tmp_path):
    card = make_card(expires=NOW + timedelta(days=1), photos=2)
    again = IdentityCard.load(card.save(tmp_path / "me.safetensors"), now=NOW)
    assert torch.equal(again.words, card.words)
    assert torch.equal(again.visual_tokens, card.visual_tokens)
    assert replace(again, words=card.words, visual_tokens=card.visual_tokens) == card


def test_an_expired_card_is_refused_with_the_date(tmp_path):
    path = make_card(expires=NOW).save(tmp_path / "me.safetensors")
    with pytest.raises(ValueError, match="expired on 2030-01-01"):
        IdentityCard.load(path, now=NOW)
    IdentityCard.load(path, now=NOW - timedelta(seconds=1))


def test_a_card_of_another_model_is_refused_with_what_differs():
    card = make_card()
    card.check_fit("a" * 64, "b" * 16)
    with pytest.raises(ValueError, match="made for the adapter aaaa.*not for cccc"):
        card.check_fit("c" * 64, "b" * 16)
    with pytest.raises(ValueError, match="made for the base bbbb.*not for dddd"):
        card.check_fit("a" * 64, "d" * 16)


def test_what_is_no_card_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="no identity card at"):
        IdentityCard.load(tmp_path / "nobody.safetensors")
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="no safetensors file"):
        IdentityCard.load(junk)
    other = tmp_path / "other.safetensors"
    save_file({"words": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="no identity card of schema 1"):
        IdentityCard.load(other)
    with pytest.raises(ValueError, match=r"\.safetensors"):
        make_card().save(tmp_path / "me.pt")


def test_several_photos_make_one_card():
    one, two = make_card(1), make_card(2)
    mean = combine_cards([one, two])
    torch.testing.assert_close(mean.words, (one.words + two.words) / 2)
    torch.testing.assert_close(mean.visual_tokens, (one.visual_tokens + two.visual_tokens) / 2)
    stacked = combine_cards([one, two], "stack")
    assert torch.equal(stacked.visual_tokens, torch.cat([one.visual_tokens, two.visual_tokens]))
    assert mean.photos == stacked.photos == 2


def test_cards_of_different_adapters_do_not_combine():
    with pytest.raises(ValueError, match="made for the adapter"):
        combine_cards([make_card(), make_card(adapter_hash="c" * 64)])
    with pytest.raises(ValueError, match="at least one photo"):
        combine_cards([])
