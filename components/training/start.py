"""Begins a run with the weights of a trained adapter instead of untrained ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core import sha256_file
from components.model import ModelConfig, load_adapter, read_adapter_card
from components.training.config import TrainConfig

PLACES = {"base", "image_encoder"}  # may lie elsewhere; that they fit is checked by their hash


def check_start(config: TrainConfig, model: ModelConfig) -> None:
    """Raises a ValueError, before anything is started, if the run cannot begin with `start_from`."""
    if config.start_from is None:
        return
    card = read_adapter_card(Path(config.start_from))
    there, here = (one.model_dump(mode="json", exclude=PLACES) for one in (card.switches, model))
    if _reaches(model.lora_targets, card.switches.lora_targets):
        there["lora_targets"] = here["lora_targets"]  # layers that had no LoRA begin with dW = 0
    differing = [f"{name} {there[name]!r}, not {here[name]!r}" for name in here if there[name] != here[name]]
    if differing:
        raise ValueError(
            f"train.start_from: {config.start_from} was trained with {'; '.join(differing)}: "
            "set model alike, or begin without it"
        )


def _reaches(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether a LoRA on the one set of layers is on all of the other (`ModelConfig.lora_targets`)."""
    return wide == "all" or (narrow != "all" and set(narrow) <= set(wide))


def start_mark(config: TrainConfig) -> str | None:
    """Returns the SHA-256 of the adapter that a run begins with, None if it begins untrained."""
    return None if config.start_from is None else sha256_file(Path(config.start_from))


def take_weights(adapter: Any, config: TrainConfig, base: Any) -> None:
    """Puts the weights of `start_from` into an adapter; does nothing without one.

    Raises:
        ValueError: The file is damaged, or belongs to another base or image encoder.
    """
    if config.start_from is not None:
        path = Path(config.start_from)
        started = load_adapter(path, base.unet, base.text_encoder, base.image_encoder)
        adapter.load_state_dict(adapter.state_dict() | started.state_dict())
