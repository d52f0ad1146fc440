"""Prompts of a tokenizer that needs no files: a word is its length."""

from types import SimpleNamespace

from components.training.prompts import Prompts


class Lengths:
    """Ten tokens a prompt; a word is 10 + its length."""

    bos_token_id, eos_token_id, pad_token_id, model_max_length = 1, 2, 0, 10

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return SimpleNamespace(input_ids=[10 + len(word) for word in text.split()])


def made_prompts(prompt="a photo of S*", words=2):
    """The training prompt and `words` pseudo-words."""
    return Prompts(Lengths(), prompt, words)
