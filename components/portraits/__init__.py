"""The portrait world: people we draw, and the small base model trained on them."""

from components.portraits.config import BaseArchitecture, PortraitsConfig

__all__ = ["BaseArchitecture", "PortraitsConfig"]
