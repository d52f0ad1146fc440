"""Licences of the weights that a model stands on: those that the settings state, and the base's own card."""

import re
from pathlib import Path

from components.registry.config import RegistryConfig

STATED = re.compile(r"^\s*(?:[-*]\s*)?licen[cs]e:\s*(?P<name>[^\n;,]+)", re.IGNORECASE | re.MULTILINE)


def weight_licences(config: RegistryConfig, base: str) -> dict[str, str]:
    """Returns licence by part; what the settings say wins over the base folder's card.

    Args:
        config: `weight_licences`.
        base: Folder or hub id of the base model.
    """
    return {"base": base_licence(base)} | config.weight_licences


def base_licence(base: str) -> str:
    """Returns what the card of a local base states, "not stated" where there is none to read."""
    for name in ("MODEL_CARD.md", "README.md"):
        card = Path(base) / name
        if card.is_file() and (found := STATED.search(card.read_text(encoding="utf-8"))):
            return found["name"].strip().rstrip(".")
    return "not stated"
