"""Names: who somebody is becomes words in the place of S*, and nothing else of a sentence changes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.portraits.pretrain.clip import load_text_encoder, load_tokenizer, tokenize
from components.portraits.pretrain.names import (
    NAME,
    WORDS,
    Names,
    identity_codes,
    load_names,
    said_of,
    save_names,
    spelled,
    states_of,
)
from components.portraits.pretrain.people import TRAIN_START, load_people


@pytest.fixture(scope="module")
def tower():
    shop = SimpleNamespace(out=Path("components/portraits/base"))
    return load_text_encoder(shop), load_tokenizer(shop)


def test_codes_tell_people_apart_and_are_the_same_for_any_range():
    codes = identity_codes(TRAIN_START, 40)
    assert codes.dtype == np.float32
    assert np.array_equal(identity_codes(TRAIN_START + 30, 10), codes[30:])
    distances = np.abs(codes[:, None] - codes[None]).max(-1)
    assert (distances[~np.eye(40, dtype=bool)] > 0.2).all()
    assert np.abs(codes).max() < 1.5
    assert codes.std(0).max() < 1.1


def test_a_name_begins_as_a_plausible_word(tower):
    embeddings = tower[0].get_input_embeddings().weight.detach()
    names = Names(identity_codes(0, 20).shape[1], embeddings)(torch.from_numpy(identity_codes(0, 20)))
    assert names.shape == (20, WORDS, embeddings.shape[1])
    assert 0.8 < float(names.std() / embeddings.std()) < 1.3


def test_a_sentence_without_a_name_has_its_usual_states(tower):
    text, tokenizer = tower
    sentences = ["", "a photo of a man with short black hair, on a red background"]
    names = torch.randn(2, WORDS, text.config.hidden_size)
    plain = text(**tokenize(tokenizer, sentences)).last_hidden_state
    assert torch.equal(states_of(text, spelled(tokenizer, sentences), names), plain)


def test_a_name_stands_where_the_sentence_says_and_only_its_own_counts(tower):
    text, tokenizer = tower
    sentences = ["a photo of S*, smiling", "a photo of S*, on a red background"]
    all_ids = spelled(tokenizer, sentences)
    ids = all_ids[0].tolist()
    assert ids[4 : 4 + WORDS] == [NAME] * WORDS
    assert ids.count(NAME) == WORDS
    assert len(ids) == tokenizer.model_max_length
    names = torch.randn(2, WORDS, text.config.hidden_size)
    other = names.clone()
    other[1] += 1
    before, after = (states_of(text, all_ids, called) for called in (names, other))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1, :4], after[1, :4])  # causal: what comes before the name does not hear it
    assert not torch.allclose(before[1, 4:], after[1, 4:])


def test_names_learn_through_the_frozen_tower(tower):
    text, tokenizer = tower
    names = torch.randn(1, WORDS, text.config.hidden_size, requires_grad=True)
    states_of(text, spelled(tokenizer, ["a photo of S*"]), names).square().mean().backward()
    assert names.grad is not None
    assert (names.grad.abs().sum(-1) > 0).all()  # each of the words


def test_what_is_said_beside_a_name_is_of_the_picture(tmp_path):
    people = load_people(tmp_path, TRAIN_START, 4, 3, 64)
    rng = np.random.default_rng(0)
    said = [said_of(people, index, rng) for index in range(len(people)) for _ in range(20)]
    assert all(sentence.count("S*") == 1 for sentence in said)
    for index in range(len(people)):
        mine = said[20 * index : 20 * index + 20]
        facts = people.attributes[index]
        placed = [sentence for sentence in mine if "background" in sentence]
        assert placed
        assert all(f"{facts['background']} background" in sentence for sentence in placed)
        assert all(("smiling" in sentence) == facts["smile"] for sentence in placed)
    assert "a photo of S*" in said


def test_names_are_kept_with_the_base(tmp_path):
    embeddings, codes = torch.randn(50, 8), torch.randn(4, 3)
    names = Names(3, embeddings)
    save_names(names, tmp_path)
    again = load_names(tmp_path, 3, embeddings)
    assert torch.allclose(again(codes), names(codes), atol=5e-3)


def test_without_the_text_towers_names_the_error_says_what_to_train(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"names.safetensors is missing.*--parts text,unet"):
        load_names(tmp_path, 3, torch.zeros(4, 8))
