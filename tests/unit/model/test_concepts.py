import pytest
import torch

from components.model import embed_prompts, encode_prompts, load_pipeline, tokenize_prompts

PROMPTS = ["a photo of a person with red hair, smiling", "", "a person with glasses on a blue background"]


def test_without_a_person_prompts_are_encoded_as_the_stock_pipeline_does(base, model_config):
    pipe = load_pipeline(model_config)
    stock, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
    assert torch.equal(encode_prompts(base.tokenizer, base.text_encoder, PROMPTS), stock)
    words = torch.randn(3, 4, 32)
    assert torch.equal(encode_prompts(base.tokenizer, base.text_encoder, PROMPTS, words), stock)


def test_a_long_prompt_without_a_person_is_cut_as_the_stock_pipeline_cuts_it(base, model_config):
    long = ["a person " * 40]
    stock, _ = load_pipeline(model_config).encode_prompt(long, "cpu", 1, False)
    assert torch.equal(encode_prompts(base.tokenizer, base.text_encoder, long), stock)


def test_words_that_are_token_embeddings_give_the_prompt_with_those_tokens(base):
    ids = base.tokenizer("person smiling", add_special_tokens=False).input_ids
    words = base.text_encoder.get_input_embeddings().weight[ids][None]
    spelt = encode_prompts(base.tokenizer, base.text_encoder, ["a photo of person smiling on a bed"])
    placed = encode_prompts(base.tokenizer, base.text_encoder, ["a photo of S* on a bed"], words)
    torch.testing.assert_close(placed, spelt)


def test_s_star_may_stand_anywhere_and_more_than_once(base):
    tokens = tokenize_prompts(base.tokenizer, ["S* and a photo of S*, smiling"], 3)
    places = tokens.word_positions[0]
    assert places[places >= 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert places[1:4].tolist() == [0, 1, 2]
    assert tokens.input_ids.shape[1] == base.tokenizer.model_max_length


def test_several_persons_each_with_their_own_words(base):
    tokens = tokenize_prompts(base.tokenizer, ["S2* beside S1*", "S*"], [[3, 2], [1]])
    assert [row[row >= 0].tolist() for row in tokens.word_positions] == [[3, 4, 0, 1, 2], [0]]
    a, b = torch.randn(3, 32), torch.randn(2, 32)
    one = encode_prompts(base.tokenizer, base.text_encoder, ["S2* beside S1*"], [[a, b]])
    other = encode_prompts(base.tokenizer, base.text_encoder, ["S1* beside S2*"], [[b, a]])
    torch.testing.assert_close(one, other)


def test_a_prompt_does_not_depend_on_its_batch(base):
    words = [[torch.randn(3, 32)], [torch.randn(1, 32)], []]
    prompts = ["a photo of S*", "S* smiling", "a person"]
    together = encode_prompts(base.tokenizer, base.text_encoder, prompts, words)
    for i in range(3):
        alone = encode_prompts(base.tokenizer, base.text_encoder, prompts[i : i + 1], words[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_a_prompt_too_long_says_how_many_tokens_over(base):
    limit = base.tokenizer.model_max_length
    room = limit - 2 - 5  # between start and end, beside five pseudo-words
    tokenize_prompts(base.tokenizer, ["a " * room + "S*"], 5)
    with pytest.raises(ValueError, match=rf"is 2 token\(s\) too long.*takes {limit + 2}.*reads {limit}"):
        tokenize_prompts(base.tokenizer, ["a " * (room + 2) + "S*"], 5)


@pytest.mark.parametrize("prompt", ["S2*", "S0*"])
def test_a_person_who_was_not_given_is_an_error(base, prompt):
    with pytest.raises(ValueError, match=r"1 person\(s\) were given"):
        tokenize_prompts(base.tokenizer, [prompt], 3)


def test_s_star_with_no_person_at_all_is_an_error(base):
    with pytest.raises(ValueError, match="S"):
        encode_prompts(base.tokenizer, base.text_encoder, ["a photo of S*"])


@pytest.mark.parametrize("prompt", ["CATS* here", "s* here", "S here", "2S*"])
def test_only_the_placeholder_itself_counts(base, prompt):
    assert (tokenize_prompts(base.tokenizer, [prompt], 3).word_positions < 0).all()


def test_gradients_flow_through_the_frozen_text_encoder_into_the_words(base):
    words = torch.randn(2, 3, 32, requires_grad=True)
    tokens = tokenize_prompts(base.tokenizer, ["a photo of S*", "a person"], [[3], []])
    embed_prompts(base.text_encoder, tokens, words)[0].square().mean().backward()
    assert words.grad[0].abs().min() > 0
    assert words.grad[1].abs().max() == 0
    assert all(p.grad is None for p in base.text_encoder.parameters())


def test_the_hook_is_gone_afterwards_even_if_the_encoder_fails(base):
    embeddings = base.text_encoder.get_input_embeddings()
    tokens = tokenize_prompts(base.tokenizer, ["S*"], 3)
    with pytest.raises(RuntimeError):
        embed_prompts(base.text_encoder, tokens, torch.randn(1, 3, 31))
    assert not embeddings._forward_hooks
