"""S* in a prompt -> pseudo-words at the text encoder's input (PhotoVerse Sec. 3.2, Fig. 2).

`S*` (or `S1*`, `S2*`... with several persons) may stand anywhere in a prompt and more than once. Each
occurrence takes the place of m tokens; the m pseudo-words of that person overwrite the token embeddings
there, and gradients flow through them. A prompt without S* is tokenised and encoded exactly as a stock
pipeline does it.

Legend: B prompts, L tokens a prompt, W words of a prompt's persons in a row, m words a person, D width of
the text encoder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PLACEHOLDER = re.compile(r"(?<![A-Za-z0-9])S(\d*)\*")

# The words of a prompt's persons: one (m, D) tensor a person.
PersonWords = Sequence[Tensor]


@dataclass(frozen=True)
class PromptTokens:
    """Tokenised prompts with places for pseudo-words.

    Attributes:
        input_ids: (B, L) int64, with any valid id where a pseudo-word stands.
        word_positions: (B, L) int64, -1 for a plain token, else the index of the pseudo-word among the
            prompt's W words.
    """

    input_ids: Tensor
    word_positions: Tensor

    def to(self, device: torch.device | str) -> "PromptTokens":
        """Returns the tokens on a device."""
        return PromptTokens(self.input_ids.to(device), self.word_positions.to(device))


def tokenize_prompts(
    tokenizer: Any, prompts: Sequence[str], words_per_person: int | Sequence[Sequence[int]]
) -> PromptTokens:
    """Tokenises prompts, giving each occurrence of a person as many places as that person has words.

    Args:
        tokenizer: The base model's `CLIPTokenizer`.
        prompts: B texts.
        words_per_person: m of the one person in every prompt, or for each prompt the m of each of its
            persons.

    Raises:
        ValueError: A prompt is too long (the message says how many tokens over), or names a person who is
            not given.
    """
    counts = [[words_per_person]] * len(prompts) if isinstance(words_per_person, int) else words_per_person
    if len(counts) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, but persons for {len(counts)}")
    rows = [_tokenize_one(tokenizer, prompt, list(m)) for prompt, m in zip(prompts, counts, strict=True)]
    ids, positions = zip(*rows, strict=True)
    return PromptTokens(torch.tensor(ids), torch.tensor(positions))


def _tokenize_one(tokenizer: Any, prompt: str, counts: list[int]) -> tuple[list[int], list[int]]:
    """Returns padded ids and word positions of one prompt."""
    ids, positions, end = [tokenizer.bos_token_id], [-1], 0
    for match in PLACEHOLDER.finditer(prompt):
        _append_text(tokenizer, prompt[end : match.start()], ids, positions)
        person = int(match[1] or 1) - 1
        if not 0 <= person < len(counts):
            raise ValueError(f"the prompt names {match[0]}, but {len(counts)} person(s) were given")
        first = sum(counts[:person])
        ids += [tokenizer.bos_token_id] * counts[person]
        positions += range(first, first + counts[person])
        end = match.end()
    _append_text(tokenizer, prompt[end:], ids, positions)
    return _close(tokenizer, prompt, ids, positions, end > 0)


def _append_text(tokenizer: Any, text: str, ids: list[int], positions: list[int]) -> None:
    if text.strip():
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        ids += tokens
        positions += [-1] * len(tokens)


def _close(
    tokenizer: Any, prompt: str, ids: list[int], positions: list[int], has_person: bool
) -> tuple[list[int], list[int]]:
    """Adds the end token and the padding. Without S* a long prompt is cut, as stock pipelines cut it."""
    limit = tokenizer.model_max_length
    over = len(ids) + 1 - limit
    if over > 0 and has_person:
        raise ValueError(
            f"the prompt is {over} token(s) too long: with its pseudo-words it takes {len(ids) + 1} "
            f"and the text encoder reads {limit}; shorten it or use fewer words a person (m)"
        )
    ids, positions = ids[: limit - 1], positions[: limit - 1]
    padding = limit - len(ids) - 1
    return (
        [*ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding],
        [*positions, *[-1] * (padding + 1)],
    )


def embed_prompts(text_encoder: Any, tokens: PromptTokens, words_BWD: Tensor | None = None) -> Tensor:
    """Runs the text encoder with pseudo-words in their places.

    Args:
        text_encoder: A `CLIPTextModel`; a hook on its input embeddings is set for the call and taken off
            again.
        tokens: As `tokenize_prompts` gives them, on the encoder's device.
        words_BWD: (B, W, D) pseudo-words of each prompt's persons in a row, padded; None if no prompt has S*.

    Returns:
        p: (B, L, D), the encoder's last hidden state.
    """
    if words_BWD is None:
        if (tokens.word_positions >= 0).any():
            raise ValueError("the prompts contain S*, but no person was given")
        return text_encoder(tokens.input_ids)[0]
    positions = tokens.word_positions

    def put_words(_module: Any, _inputs: Any, embeddings: Tensor) -> Tensor:
        place = positions.to(embeddings.device)[
            ..., None
        ]  # an offloaded encoder runs elsewhere than it rests
        index = place.clamp(min=0).expand(-1, -1, embeddings.shape[-1])
        return torch.where(place >= 0, words_BWD.to(embeddings).gather(1, index), embeddings)

    handle = text_encoder.get_input_embeddings().register_forward_hook(put_words)
    try:
        return text_encoder(tokens.input_ids)[0]
    finally:
        handle.remove()


def encode_prompts(
    tokenizer: Any,
    text_encoder: Any,
    prompts: Sequence[str],
    words: Tensor | Sequence[PersonWords] | None = None,
) -> Tensor:
    """Encodes prompts with S* in them.

    Args:
        tokenizer: Of the base model.
        text_encoder: Of the base model.
        prompts: B texts.
        words: (B, m, D) for one person a prompt, or for each prompt a list of (m, D), one a person (S1*,
            S2*...); None if no prompt has S*.

    Returns:
        p: (B, L, D), L = the tokenizer's `model_max_length`.

    Raises:
        ValueError: A prompt with S* is too long, or names a person who is not given.
    """
    if words is None:
        persons: list[PersonWords] = [[] for _ in prompts]
    else:
        persons = [[row] if isinstance(row, Tensor) else row for row in words]
    tokens = tokenize_prompts(tokenizer, prompts, [[len(person) for person in row] for row in persons])
    device = text_encoder.device
    rows = [torch.cat(list(row)).to(device) for row in persons if len(row)]
    if not rows:
        return embed_prompts(text_encoder, tokens.to(device), None)
    width, dtype = rows[0].shape[-1], rows[0].dtype
    empty = torch.zeros(0, width, dtype=dtype, device=device)
    padded = [torch.cat(list(row)).to(device) if len(row) else empty for row in persons]
    return embed_prompts(
        text_encoder, tokens.to(device), torch.nn.utils.rnn.pad_sequence(padded, batch_first=True)
    )
