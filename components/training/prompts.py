"""Prompts of training samples -> token rows with places for the pseudo-words."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
CACHED = 65_536


class Prompts:
    """Token rows of prompts, each tokenised once.

    Args:
        tokenizer: Of the base model.
        prompt: The training prompt, with S*.
        words: Pseudo-words that S* stands for.
    """

    def __init__(self, tokenizer: Any, prompt: str, words: int) -> None:
        self.prompt, self._tokenizer, self._words = prompt, tokenizer, words
        self._row = lru_cache(CACHED)(self._tokenized)

    def rows(self, prompts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Returns input ids and word positions, (B, L) int64 each.

        Args:
            prompts: None is the training prompt, "" the empty one, anything else a photo's own. One that is
                too long for the text encoder gives way to the training prompt, with a warning.
        """
        rows = [self._row(self.prompt if prompt is None else prompt) for prompt in prompts]
        ids, positions = zip(*rows, strict=True)
        return torch.stack(ids), torch.stack(positions)

    def _tokenized(self, prompt: str) -> tuple[Tensor, Tensor]:
        from components.model import tokenize_prompts

        try:
            tokens = tokenize_prompts(self._tokenizer, [prompt], self._words)
        except ValueError as error:
            if prompt == self.prompt:
                raise
            logger.warning("%r is trained as %r: %s", prompt, self.prompt, error)
            return self._row(self.prompt)
        return tokens.input_ids[0], tokens.word_positions[0]
